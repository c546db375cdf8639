//go:build race

package cli

// garbageOfACommand is how many bytes "keyway version" may allocate. The race detector makes small values escape.
const garbageOfACommand = 6 << 20
