// Package libraries compares the stores of this project with well-known rate-limit
// libraries for Go: on the same keys, in one run, in memory and in a real Redis. It is a
// module of its own because of the libraries' dependencies. It has only benchmarks, and a
// test that every compared limiter does limit. cmd/bench makes tables of the output.
package libraries
