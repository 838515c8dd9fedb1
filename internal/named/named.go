// Package named owns how a message names a setting. A package knows its settings only
// as fields of its options; its caller knows how an operator sets them.
package named

// Fields returns the flag and the variable by which an operator sets a field. Both are
// empty for an unknown field. A nil Fields knows none.
type Fields func(field string) (flag, variable string)

// Of returns the setting to name for a field: the flag, or else the variable, or else
// the field itself.
func (n Fields) Of(field string) string {
	switch flag, variable := n.both(field); {
	case flag != "":
		return flag
	case variable != "":
		return variable
	}
	return field
}

// Either returns both ways to set a field, if there are two: "--a or A".
func (n Fields) Either(field string) string {
	if flag, variable := n.both(field); flag != "" && variable != "" {
		return flag + " or " + variable
	}
	return n.Of(field)
}

// Variable returns the variable that sets a field, or else what Of does.
func (n Fields) Variable(field string) string {
	if _, variable := n.both(field); variable != "" {
		return variable
	}
	return n.Of(field)
}

func (n Fields) both(field string) (flag, variable string) {
	if n == nil {
		return "", ""
	}
	return n(field)
}
