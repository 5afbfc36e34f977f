//go:build race

package portmap

// madeUpPrograms is how many a test asks for: enough to see a list grow. The race detector is slow at lists.
const madeUpPrograms = 50_000
