package commandline

import (
	"embed"
	"strings"

	"github.com/alecthomas/kong"
)

// scripts make a shell complete the words of a command line by asking its program:
// complete -- WORD... lists what Complete returns.
//
//go:embed completion.*
var scripts embed.FS

// Script returns the script that a shell (bash, zsh or fish) must source to complete
// the command lines of a program.
func Script(shell, program string) (string, error) {
	text, err := scripts.ReadFile("completion." + shell)
	return strings.ReplaceAll(string(text), "PROGRAM", program), err
}

// Candidate is a possible completion.
type Candidate struct{ Word, Help string }

// Complete returns the candidates for the last of the words after the program's name.
// None means that the word may be anything, such as a file.
func Complete(app *kong.Application, words []string) (list []Candidate) {
	if len(words) == 0 {
		return nil
	}
	at := position{node: app.Node}
	last := len(words) - 1
	for _, word := range words[:last] {
		at.pass(word)
	}
	for _, c := range at.candidates(words[last]) {
		if strings.HasPrefix(c.Word, strings.TrimPrefix(words[last], "=")) {
			list = append(list, c)
		}
	}
	return list
}

// position is the place of a word in a command line.
type position struct {
	node       *kong.Node
	flag       *kong.Flag // whose value the word is; nil for none
	arguments  int        // before it
	noMoreFlag bool       // after --
}

// pass moves past a word. In bash the = of --flag=value is a word.
func (at *position) pass(word string) {
	switch {
	case at.flag != nil:
		if word != "=" {
			at.flag = nil
		}
	case at.noMoreFlag:
		at.arguments++
	case word == "--":
		at.noMoreFlag = true
	case strings.HasPrefix(word, "-"):
		if f := at.named(word); f != nil && !f.IsBool() {
			at.flag = f
		}
	case child(at.node, word) != nil:
		at.node = child(at.node, word)
	case at.node.Parent != nil || word != "help":
		at.arguments++
	}
}

func (at *position) candidates(word string) (list []Candidate) {
	name, _, hasValue := strings.Cut(word, "=")
	switch {
	case at.flag != nil:
		return values(at.flag.Value, "")
	case !at.noMoreFlag && strings.HasPrefix(word, "-") && hasValue:
		if f := at.named(name); f != nil {
			return values(f.Value, name+"=")
		}
		return nil
	case !at.noMoreFlag && strings.HasPrefix(word, "-"):
		for _, f := range at.flags() {
			list = append(list, Candidate{"--" + f.Name, firstSentence(f.Help)})
			if f.Negated || f.Tag.Negatable != "" {
				list = append(list, Candidate{"--no-" + f.Name, "Not: " + firstSentence(f.Help)})
			}
		}
		return list
	case at.arguments < len(at.node.Positional):
		return values(at.node.Positional[at.arguments], "")
	}
	for _, c := range at.node.Children {
		if !c.Hidden {
			list = append(list, Candidate{c.Name, firstSentence(c.Help)})
		}
	}
	if at.node.Parent == nil {
		list = append(list, Candidate{"help", "Show the help of a command."})
	}
	return list
}

// flags returns the flags that may stand here, including those of the default command.
func (at *position) flags() (list []*kong.Flag) {
	nodes := []*kong.Node{at.node, at.node.DefaultCmd}
	for n := at.node.Parent; n != nil; n = n.Parent {
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if n == nil {
			continue
		}
		for _, f := range n.Flags {
			if !f.Hidden {
				list = append(list, f)
			}
		}
	}
	return list
}

// named returns the flag that a word such as --output or -o names; nil if it names none.
func (at *position) named(word string) *kong.Flag {
	for _, f := range at.flags() {
		if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
			return f
		}
	}
	return nil
}

// values returns the values of an enumeration.
func values(v *kong.Value, before string) (list []Candidate) {
	if v.Enum == "" {
		return nil
	}
	for _, word := range v.EnumSlice() {
		if word != "" {
			list = append(list, Candidate{Word: before + word})
		}
	}
	return list
}

func firstSentence(help string) string {
	for _, end := range []string{". ", ": "} {
		help, _, _ = strings.Cut(help, end)
	}
	return strings.TrimSuffix(help, ".")
}
