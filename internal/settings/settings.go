// Package settings owns what an operator can set about the service: the flags of serve, the
// variables of this service and those of envoyproxy/ratelimit. It turns them into options of
// the packages that do the work. No other package below cmd/ knows the name of a variable.
package settings

import (
	"fmt"
	"strconv"
	"time"
)

// Getenv is as os.Getenv: an empty value is no value.
type Getenv func(name string) string

// environment reads variables and collects their errors.
type environment struct {
	get      Getenv
	errs     []error
	warnings []string
}

func (e *environment) wrong(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(format, args...))
}

// choice is a value and its source.
type choice[T comparable] struct {
	from  string
	value T
}

// agreed returns the value that all choices give, or the zero value if there are no
// choices. Choices that differ are an error, which shows no values.
func agreed[T comparable](e *environment, what string, choices []choice[T]) (value T) {
	for i, c := range choices {
		if i > 0 && c.value != choices[0].value {
			e.wrong("%s and %s give different %s: leave one of them out", choices[0].from, c.from, what)
			return value
		}
	}
	if len(choices) > 0 {
		value = choices[0].value
	}
	return value
}

// text returns the choice that the variable gives, if it is set.
func (e *environment) text(name string) []choice[string] {
	if v := e.get(name); v != "" {
		return []choice[string]{{name, v}}
	}
	return nil
}

func (e *environment) boolean(name string, otherwise bool) bool {
	v := e.get(name)
	if v == "" {
		return otherwise
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		e.wrong("%s is %q: use true or false", name, v)
	}
	return b
}

func (e *environment) number(name string) int {
	v := e.get(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		e.wrong("%s is %q: use a whole number that is not negative", name, v)
	}
	return n
}

func (e *environment) duration(name string) time.Duration {
	v := e.get(name)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		e.wrong("%s is %q: use a duration such as 20ms", name, v)
	}
	return d
}

// seconds reads a number of seconds, or a duration.
func (e *environment) seconds(name string, otherwise time.Duration) time.Duration {
	v := e.get(name)
	if v == "" {
		return otherwise
	}
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		e.wrong("%s is %q: use seconds, such as 3600, or a duration, such as 1h", name, v)
	}
	return d
}
