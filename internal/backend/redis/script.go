package redis

import (
	"embed"
	"fmt"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// composeScript puts the script together: the code that all programs share, one
// function that defines a program when a call needs it, and the code that decides.
// Programs are numbered as in algo, and each has a file of its own, named after it. A
// call defines only the programs that it needs, because defining one takes longer than
// deciding.
func composeScript() string {
	var b strings.Builder
	b.WriteString(luaFile("prelude"))
	b.WriteString("\nlocal program\n")
	for number, name := range algo.Programs() {
		fmt.Fprintf(&b, "local %s = %d\n", strings.ToUpper(name), number)
	}
	b.WriteString("\nlocal function define(kind)\n")
	word := "if"
	for number, name := range algo.Programs() {
		fmt.Fprintf(&b, "%s kind == %d then\n%s\n", word, number, luaFile(name))
		word = "elseif"
	}
	b.WriteString(`end end

local defined = {}
function program(kind)
  if not defined[kind] then defined[kind] = define(kind) end
  return defined[kind]
end

`)
	fmt.Fprintf(&b, "%s\nlocal function define_request()\n%send\n\n%s", luaFile("decide"), luaFile("request"), luaFile("main"))
	return b.String()
}

// luaFile returns an embedded file, without its comments.
func luaFile(name string) string {
	text, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // every test would find it: the files are part of the program
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if code := strings.TrimSpace(line); code != "" && !strings.HasPrefix(code, "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}
