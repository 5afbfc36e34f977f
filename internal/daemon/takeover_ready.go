package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/daemon/logging"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// ready returns the function to call when everything is served. It tells how the takeover went, then calls next, and if
// that is well there is no way back.
func (t *takeover) ready(ctx context.Context, next func() error) func() error {
	if t == nil {
		return next
	}
	return func() error {
		if err := interrupted(ctx); err != nil {
			return err
		}
		text := t.describe(time.Since(t.ordered))
		t.config.Log.Info(text, logging.MessageID, logging.IDTaken, "UNIT", strings.Join(t.from.Units(), " "))
		if t.config.TakenOver != nil {
			t.config.TakenOver(text)
		}
		if next != nil {
			if err := next(); err != nil {
				return err
			}
		}
		t.serving = true
		t.release()
		t.from.Close()
		return nil
	}
}

// describe tells how it went.
func (t *takeover) describe(gap time.Duration) string {
	meanwhile := "calls were refused meanwhile"
	switch {
	case t.inherited:
		meanwhile = "calls waited meanwhile, none was refused"
	case t.shared:
		meanwhile = "TCP connections waited meanwhile, datagrams are answered when they are sent again"
	}
	text := fmt.Sprintf("taken over from %s: %s; at most %v without an answer, %s", t.from.Name(), counted(t.restored),
		gap.Round(100*time.Microsecond), meanwhile)
	if units := strings.Join(t.from.StartedAtBoot(), " "); units != "" {
		text += fmt.Sprintf("; systemd starts %s again at the next boot unless you say systemctl disable %[1]s, or enable "+Unit, units)
	}
	return text
}

// countOthers returns how many registrations aren't a portmapper's own.
func countOthers(regs []rpcbind.RPCB) int {
	n := 0
	for _, b := range regs {
		if b.Program != rpcbind.Program {
			n++
		}
	}
	return n
}

func counted(registrations int) string {
	if registrations == 1 {
		return "1 registration"
	}
	return fmt.Sprintf("%d registrations", registrations)
}
