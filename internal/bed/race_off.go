//go:build !race

package bed

// RaceEnabled tells whether this test binary has the race detector, so that
// the daemon gets it as well.
const RaceEnabled = false
