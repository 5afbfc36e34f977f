package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// doctor prints what keeps a daemon from starting, or will, and what to do about it. The exit code is 0 if nothing is
// wrong, 1 if something is.
func doctor(ctx context.Context, o options, f controlFlags, stdout io.Writer) (int, error) {
	d := daemon.Diagnose(ctx, o.Config, f.fix)
	code := daemon.ExitOK
	if !d.OK {
		code = exitNo
	}
	if f.json {
		return code, printJSON(stdout, d)
	}
	_, err := io.WriteString(stdout, diagnosisText(d))
	return code, err
}

// diagnosisText has a line for each finding and one for each remedy.
func diagnosisText(d daemon.Diagnosis) string {
	var b strings.Builder
	wrong := 0
	for _, f := range d.Findings {
		severity := string(f.Severity)
		switch {
		case f.Fixed:
			severity = "fixed"
		case f.Severity != daemon.Note:
			wrong++
		}
		fmt.Fprintf(&b, "%-8s %s: %s\n", severity, f.Subject, logging.Escape(f.Text))
		if f.Remedy != "" && !f.Fixed {
			fmt.Fprintf(&b, "%-8s remedy: %s\n", "", logging.Escape(f.Remedy))
		}
	}
	if wrong == 0 {
		b.WriteString("nothing is wrong\n")
	} else {
		fmt.Fprintf(&b, "findings: %d\n", wrong)
	}
	return b.String()
}
