//go:build !race

package portmap

// madeUpPrograms is how many a test asks for; .ci/unit tests this package without the race detector too.
const madeUpPrograms = 1_000_000
