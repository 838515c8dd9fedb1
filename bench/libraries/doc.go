// Package libraries measures the stores of this project beside well-known
// rate-limit libraries for Go: on the same keys, in one run, in memory and in a
// real Redis. It is a module of its own because of what they depend on. It has
// benchmarks only, and a test that what they compare does limit; cmd/bench makes
// tables of their output.
package libraries
