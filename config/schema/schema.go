// Package schema holds the grammars as JSON Schemas, for editors. What the parsers
// accept is for rulefile and ruletest; tests keep the two in step.
package schema

import _ "embed"

var (
	// Rules is the schema of a domain in a rule file.
	//
	//go:embed rules.json
	Rules []byte
	// Tests is that of a file of tests of rules, which refers to rules.json beside it.
	//
	//go:embed tests.json
	Tests []byte
)
