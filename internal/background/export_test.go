package background

func (t *Task) GiveWay() { t.giveWay() }
