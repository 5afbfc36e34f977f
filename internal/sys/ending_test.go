package sys

import (
	"os"
	"testing"
)

func TestEnding(t *testing.T) {
	if Ending(os.Getpid()) || Ending(1) || Ending(1<<30) {
		t.Error("a process that goes on, or isn't there, is ending")
	}
	for status, want := range map[string]bool{
		"Name:\tSigPnd: 1\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n": false,
		"SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":                   true,  // SIGKILL
		"SigPnd:\t0000000000000000\nShdPnd:\t0000000000004100\n":                   true,  // and SIGTERM
		"SigPnd:\t0000000000004000\nShdPnd:\t0000000000004000\nSigBlk:\t100\n":     false, // SIGTERM alone
		"": false,
	} {
		if got := killed([]byte(status)); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}
