package sys

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/journal"
)

// SendJournal gives systemd's journal a message with fields, whose names are capitals, digits and underscores. Priority is
// syslog's. It doesn't wait for the journal to read.
func SendJournal(message string, priority int, fields map[string]string) error {
	if err := journal.Send(message, journal.Priority(priority), fields); err != nil {
		return fmt.Errorf("send to the journal: %w", err)
	}
	return nil
}
