package main

import "github.com/distlimiter/ratelimit/config/schema"

type schemaCmd struct {
	Of string `arg:"" optional:"" enum:"rules,tests" default:"rules" help:"rules, or tests for files of ratelimit test."`
}

// Help describes the use of the schema.
func (schemaCmd) Help() string {
	return `Editors that know JSON Schema complete and check rules as you write them. Save the schema beside your rules, and begin each file with a line that names it:

    # yaml-language-server: $schema=rules.schema.json

Example: ratelimit schema > rules.schema.json`
}

func (c *schemaCmd) Run(con console) error {
	text := schema.Rules
	if c.Of == "tests" {
		text = schema.Tests
	}
	_, err := con.out.Write(text)
	return err
}
