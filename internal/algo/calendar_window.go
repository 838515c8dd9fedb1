package algo

// calendarWindow is a fixedWindow whose windows come from a schedule.
//
// State: that of fixedWindow. A count stays in the window in which it began until that
// window ends. So replicas whose time zone data differ in age share one window,
// whichever of them began it. If the clock steps back over one boundary, the window
// after that boundary stays in force, because it has begun. A window further ahead
// cannot have begun; the window of now replaces it.
type calendarWindow struct {
	fixedWindow
	schedule *schedule
}

func newCalendarWindow(p Params) (stepper, error) {
	s, err := newSchedule(p.Calendar)
	if err != nil {
		return nil, err
	}
	return &calendarWindow{fixedWindow{limit: int64(p.Limit)}, s}, nil
}

func (*calendarWindow) program() string { return "calendar_window" }
func (c *calendarWindow) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(c.limit))
}

func (c *calendarWindow) settle(s State, now int64) {
	b := c.schedule.around(now)
	switch ends := int64(s[windowEnd]); {
	case s[windowCount] == 0 || now >= ends:
		s[windowEnd], s[windowCount] = uint64(b.end), 0
	case ends > b.next:
		s[windowEnd] = uint64(b.end)
	}
	if s[windowCount] > maxCount {
		s[windowCount] = maxCount
	}
}

func (c *calendarWindow) refund(s State, now, n int64) State {
	s[windowCount] -= min(s[windowCount], uint64(n))
	if s[windowCount] == 0 {
		s[windowEnd] = uint64(c.schedule.around(now).end)
	}
	return s
}
