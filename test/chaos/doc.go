// Package chaos runs the real service, several processes of it, with real Redis
// servers under random rules, random requests and random faults, and checks the
// record of all answers afterwards against what the service promises.
//
// A seed decides the plan of a run: where counters live, the rules in all their
// versions, each client's stream of requests, and what goes wrong when. What it
// can't decide is how processes interleave. docs/dev/reliability.md says what is
// checked, and how to repeat a run.
package chaos
