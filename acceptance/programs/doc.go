// Package programs holds the tests of Keyway beside other people's programs: gateways, model
// servers, tool servers, poolers and clients, each with a pinned version. `make programs`
// installs the programs and prints the variable KEYWAY_PROGRAMS; without it the tests are
// skipped.
//
// A program is a directory below testdata, with its pins and what its tests give it, and a
// file NAME_test.go, whose tried lists the program for docs/tried.md.
package programs

//go:generate go test -run TestTheTableOfTriedProgramsIsCurrent -update .
