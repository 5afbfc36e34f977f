package sys

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestNothingHandedOver: variables that are another's hand over nothing, nonsense is an error, and they are gone afterwards.
func TestNothingHandedOver(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, count string
		wrong      string // part of the error; "" for none
	}{
		{"", "", ""}, {own, "", ""}, {own, "0", ""}, {"1", "1", ""}, {"x", "1", ""}, {"", "1", ""},
		{own, "-1", `LISTEN_FDS="-1"`}, {own, "x", `LISTEN_FDS="x"`}, {own, "99999999999999999999", "is no number"},
		{own, "1000000000", "was not passed"}, {own, "1", "descriptor 3 was not passed"}, {own, "200", "was not passed"},
	} {
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.count)
		t.Setenv("LISTEN_FDNAMES", "a:b")
		files, err := handedOver()
		if files != nil || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("LISTEN_PID=%s LISTEN_FDS=%s: %d descriptors, %v; want %q", c.pid, c.count, len(files), err, c.wrong)
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if v, ok := os.LookupEnv(name); ok {
				t.Errorf("%s=%s stays", name, v)
			}
		}
	}
}
