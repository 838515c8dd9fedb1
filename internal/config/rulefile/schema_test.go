package rulefile_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/config/schema"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// TestSchemaHasTheKeysOfTheGrammar: for each variable xKeys = newKeys(…) of this package
// the definition x of config/schema/rules.json has just those keys; for rootKeys it is the
// schema itself. test/schema holds the rest of the schema to the parser.
func TestSchemaHasTheKeysOfTheGrammar(t *testing.T) {
	type definition struct {
		Properties           map[string]json.RawMessage
		AdditionalProperties json.RawMessage
	}
	var s struct {
		definition
		Definitions map[string]definition
	}
	if err := json.Unmarshal(schema.Rules, &s); err != nil {
		t.Fatal(err)
	}
	grammar := keysOfTheGrammar(t)
	if len(grammar) < 9 {
		t.Fatalf("found the keys of %d mappings only: %v", len(grammar), grammar)
	}
	for name, want := range grammar {
		where, got := "definitions/"+name, s.Definitions[name]
		if name == "root" {
			where, got = "the schema itself", s.definition
		}
		if got.Properties == nil {
			t.Errorf("config/schema/rules.json: there is no definition %q for the mapping with the keys %v (%sKeys): write it, and refer to it where the parser reads one", name, want, name)
			continue
		}
		if string(got.AdditionalProperties) != "false" {
			t.Errorf("config/schema/rules.json: %s allows unknown keys: write \"additionalProperties\": false", where)
		}
		for _, key := range want {
			if _, has := got.Properties[key]; !has {
				t.Errorf("config/schema/rules.json: %s lacks the key %q, which the parser accepts (%sKeys)", where, key, name)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(got.Properties)) {
			if !slices.Contains(want, key) {
				t.Errorf("config/schema/rules.json: %s has the key %q, which the parser does not accept (%sKeys)", where, key, name)
			}
		}
	}
	for name, d := range s.Definitions {
		if _, is := grammar[name]; !is && d.Properties != nil {
			t.Errorf("config/schema/rules.json: definitions/%s is a mapping that the parser does not know: there is no %sKeys", name, name)
		}
	}
}

// TestSchemaHasTheAlgorithms of the registry.
func TestSchemaHasTheAlgorithms(t *testing.T) {
	var s struct {
		Definitions struct {
			Limit struct {
				Properties struct{ Algorithm struct{ Enum []*string } }
			}
		}
	}
	if err := json.Unmarshal(schema.Rules, &s); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range s.Definitions.Limit.Properties.Algorithm.Enum {
		if name != nil { // null is no algorithm, as where none is written
			got = append(got, *name)
		}
	}
	if want := algo.Algorithms(); !slices.Equal(got, want) {
		t.Errorf("config/schema/rules.json: definitions/limit/properties/algorithm: enum is %v, and the registry has %v", got, want)
	}
}

// keysOfTheGrammar returns the keys of each mapping by the name of their variable, without
// its Keys. They are read from the source, so that a new mapping can't be left out.
func keysOfTheGrammar(t *testing.T) map[string][]string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	constants, calls := map[string]string{}, map[string][]ast.Expr{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, is := n.(*ast.ValueSpec)
			if !is || len(spec.Names) != len(spec.Values) {
				return true
			}
			for i, name := range spec.Names {
				switch v := spec.Values[i].(type) {
				case *ast.BasicLit:
					if v.Kind == token.STRING {
						constants[name.Name], _ = strconv.Unquote(v.Value)
					}
				case *ast.CallExpr:
					if f, is := v.Fun.(*ast.Ident); is && f.Name == "newKeys" {
						calls[name.Name] = v.Args[1:]
					}
				}
			}
			return true
		})
	}
	delete(calls, "lenientKeys") // keys that envoyproxy/ratelimit accepts, without effect
	grammar := map[string][]string{}
	for name, args := range calls {
		short, found := strings.CutSuffix(name, "Keys")
		if !found {
			t.Errorf("%s = newKeys(…): call it %sKeys, so that the schema's definition has a name", name, name)
		}
		for _, arg := range args {
			switch a := arg.(type) {
			case *ast.BasicLit:
				key, _ := strconv.Unquote(a.Value)
				grammar[short] = append(grammar[short], key)
			case *ast.Ident:
				if constants[a.Name] == "" {
					t.Errorf("%s: %s is no constant string of this package", name, a.Name)
				}
				grammar[short] = append(grammar[short], constants[a.Name])
			default:
				t.Errorf("%s: write each key as a string or a constant", name)
			}
		}
	}
	return grammar
}
