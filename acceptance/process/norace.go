//go:build !race

package process

// raceEnabled says that the tests, and so the programs under test, are built with the
// race detector.
const raceEnabled = false
