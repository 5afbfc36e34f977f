package sys

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A Notifier tells the service manager how the daemon fares (sd_notify(3)). A nil *Notifier does nothing.
type Notifier struct {
	manager  managerSocket
	watchdog time.Duration
}

// NewNotifier returns nil if no service manager listens, that is, NOTIFY_SOCKET is unset or empty.
func NewNotifier() *Notifier {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// An interval that can't be read is none: whoever set it doesn't wait for us either.
	watchdog, _ := daemon.SdWatchdogEnabled(false)
	return &Notifier{manager: managerSocket{path: path}, watchdog: watchdog}
}

// Ready says that the daemon serves, and how, in one line for systemctl status.
func (n *Notifier) Ready(status string) error {
	return n.notify(daemon.SdNotifyReady + "\nSTATUS=" + oneLine(status))
}

// Stopping says that the daemon is about to end.
func (n *Notifier) Stopping() error { return n.notify(daemon.SdNotifyStopping) }

// Reloading says that the configuration is being read again, until Ready says that this is done.
func (n *Notifier) Reloading() error {
	return n.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// WatchdogInterval is how long the service manager waits for Alive before it takes the daemon for hung and ends it; 0 if
// it doesn't wait.
func (n *Notifier) WatchdogInterval() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Alive says that the daemon isn't hung.
func (n *Notifier) Alive() error { return n.notify(daemon.SdNotifyWatchdog) }

// Status replaces the line for systemctl status.
func (n *Notifier) Status(s string) error { return n.notify("STATUS=" + oneLine(s)) }

func (n *Notifier) notify(state string) error {
	if n == nil {
		return nil
	}
	if err := n.manager.send(state, -1); err != nil {
		return fmt.Errorf("notify the service manager at %s: %w", n.manager.path, err)
	}
	return nil
}

// oneLine keeps a text from ending its assignment and starting another: a line feed separates assignments.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
