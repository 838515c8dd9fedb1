// Package named owns how a message names a setting. A package knows its settings as
// fields of its options; how an operator sets one is for the outside to say.
package named

// Fields returns how an operator sets a field: by which flag, and by which variable.
// Both are empty where it does not know. A nil Fields knows none.
type Fields func(field string) (flag, variable string)

// Of returns what to set for a field: the flag, or else the variable, or else the
// field itself.
func (n Fields) Of(field string) string {
	switch flag, variable := n.both(field); {
	case flag != "":
		return flag
	case variable != "":
		return variable
	}
	return field
}

// Either returns both ways to set a field, where there are two: "--a or A".
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
