package sys

import (
	"os"
	"strconv"
	"testing"
)

// TestNothingHandedOver: variables that are another's, or nonsense, hand over nothing, and are gone afterwards.
func TestNothingHandedOver(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range [][2]string{{"", ""}, {own, ""}, {own, "0"}, {own, "-1"}, {own, "x"}, {own, "99999999999"}, {own, "1000000000"},
		{"1", "1"}, {"x", "1"}, {"", "1"}} {
		t.Setenv("LISTEN_PID", c[0])
		t.Setenv("LISTEN_FDS", c[1])
		t.Setenv("LISTEN_FDNAMES", "a:b")
		if files := handedOver(); files != nil {
			t.Errorf("LISTEN_PID=%s LISTEN_FDS=%s: %d descriptors", c[0], c[1], len(files))
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if v, ok := os.LookupEnv(name); ok {
				t.Errorf("%s=%s stays", name, v)
			}
		}
	}
}
