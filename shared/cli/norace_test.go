//go:build !race

package cli

// garbageOfACommand is how many bytes "keyway version" may allocate.
const garbageOfACommand = 800 << 10
