package portmapper_test

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gportmap/gportmap/pkg/portmapper"
)

// leftOver waits until no goroutine runs code of the given packages and returns the stacks of those that stay.
func leftOver(packages ...string) string {
	buf := make([]byte, 1<<20)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var left []string
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, p := range packages {
				if strings.Contains(stack, p+".") && !strings.Contains(stack, "testing.tRunner") {
					left = append(left, stack)
				}
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}

// Nothing is left running when Close returns, whatever the clients do.
func TestNoGoroutineLeaks(t *testing.T) {
	for range 3 {
		pm, err := portmapper.Start(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			c, err := net.Dial("tcp", pm.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte{0x80, 0, 0})
		}
		c := dial(t, "tcp", pm.Addr())
		if err := c.Null(limited(t), 2); err != nil {
			t.Error(err)
		}
		if err := pm.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := leftOver("gportmap/pkg/portmapper"); left != "" {
		t.Errorf("still running:\n%s", left)
	}
}
