// Package chaos runs several processes of the real service with real Redis servers, under
// random rules, random requests and random faults. Afterwards it checks the record of all
// answers against the promises of the service.
//
// A seed decides the plan of a run: where counters live, the rules in all their versions,
// each client's stream of requests, and the faults with their times. It can't decide how
// processes interleave. docs/dev/reliability.md describes the checks, and how to repeat a
// run.
package chaos
