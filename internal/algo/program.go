package algo

import "slices"

// Program numbers the arithmetic of a limit, for a store that runs it elsewhere
// than in this process: a script in a database.
type Program uint8

// programNames lists the programs of all algorithms, each once.
var programNames = func() (names []string) {
	for i := range kinds {
		for _, name := range kinds[i].programs {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return append(names, "hold") // around others
}()

// Programs lists the names of the programs, in order.
func Programs() []string { return slices.Clone(programNames) }

// String returns the name of the program, such as "bucket".
func (p Program) String() string { return programNames[p] }

func programOf(s stepper) Program { return Program(slices.Index(programNames, s.program())) }

// Program returns the program of the limit. Together with the numbers that
// AppendNumbers returns it is all that a step needs besides the state, the
// time, the hits and DeniedHits.
func (l *Limit) Program() Program { return l.number }

// AppendNumbers appends the parameters of the limit's program to dst: whole
// numbers from 0 to 2^53, which a float64 holds exactly. The program's file says
// which.
func (l *Limit) AppendNumbers(dst []float64) []float64 { return l.appendNumbers(dst) }

// AnswersInPart reports that the limit's program does not answer whole states,
// which grow, but the numbers that Answer reads.
func (l *Limit) AnswersInPart() bool { return l.inPart }

// AppendState appends to dst a settled state as a program answers it. next returns
// its numbers in turn: whole numbers below 2^53.
func (l *Limit) AppendState(dst State, next func() int64) State {
	return appendState(dst, l.stepper, next)
}

func appendState(dst State, s stepper, next func() int64) State {
	if p, ok := s.(packer); ok {
		return p.appendState(dst, next)
	}
	for range max(0, s.words()) {
		dst = append(dst, uint64(next()))
	}
	return dst
}

// Answer returns the decision on a call with these hits at now, of a program that
// answers in part. next returns its numbers in turn.
func (l *Limit) Answer(now, hits int64, allowed bool, next func() int64) Decision {
	if l.hold != nil {
		return l.For(Hold{}).Answer(now, hits, allowed, next)
	}
	return l.stepper.(answerer).answer(now, hits, allowed, next)
}
