package main

import (
	"bytes"
	"os"
	"regexp"
	"testing"
)

// TestManualHasEveryOption holds the manual page to what --help tells of.
func TestManualHasEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/rpcinfo.8.md")
	if err != nil {
		t.Fatal(err)
	}
	options := regexp.MustCompile(`(?:^|[ \[(])(--?[a-zA-Z][a-z-]*)`).FindAllStringSubmatch(helpText, -1)
	if len(options) < 18 {
		t.Fatalf("only %d options were found", len(options))
	}
	for _, o := range options {
		if !bytes.Contains(page, []byte("**"+o[1]+"**")) {
			t.Errorf("the manual page doesn't have %s", o[1])
		}
	}
}
