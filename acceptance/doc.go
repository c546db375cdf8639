// Package acceptance holds the tests of what the product promises. They build keyway,
// start it as a process and use it from outside: over its sockets, its files and its
// command line. They know nothing of how keyway is made.
package acceptance

//go:generate go test -run TestTheIdentityPageShowsWhatWhoamiPrints -update .
