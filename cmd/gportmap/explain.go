package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

const explainUsage = "explain [--on INTERFACE] [--to ADDRESS] [--json] [the daemon's flags] CALLER PROCEDURE[/VERSION] " +
	"[PROGRAM [VERSION [NETID [ADDRESS]]]]"

// explain tells what a caller would be answered, and which rule decides. It returns the exit code: 1 if the call is refused.
func explain(name string, args []string, stdout, stderr io.Writer) int {
	code, err := explained(args[1:], stdout)
	if err != nil {
		fail(stderr, name, fmt.Errorf("%s: %w", args[0], err))
	}
	return code
}

func explained(args []string, stdout io.Writer) (int, error) {
	var q daemon.Question
	var to string
	asJSON := false
	flags, words := splitWords(args)
	o, err := parse(flags, func(f *pflag.FlagSet) {
		f.StringVar(&q.On, "on", "", "")
		f.StringVar(&to, "to", "", "")
		f.BoolVar(&asJSON, "json", false, "")
	})
	switch {
	case err != nil:
		return daemon.ExitUsage, err
	case o.help:
		_, err := io.WriteString(stdout, "Usage: gportmap "+explainUsage+"\n")
		return daemon.ExitOK, err
	case o.fileError != nil:
		return daemon.ExitCode(o.fileError), o.fileError
	}
	if to != "" {
		if q.To, err = netip.ParseAddr(to); err != nil {
			return daemon.ExitUsage, fmt.Errorf("--to %q: give an IP address", to)
		}
	}
	if err := readQuestion(&q, words); err != nil {
		return daemon.ExitUsage, err
	}
	e, err := daemon.Explain(context.Background(), o.Config, q)
	if err != nil {
		return daemon.ExitCode(err), err
	}
	code := daemon.ExitOK
	if !e.Permitted {
		code = exitNo
	}
	if asJSON {
		return code, printJSON(stdout, e)
	}
	_, err = io.WriteString(stdout, explanationText(e))
	return code, err
}

// splitWords cuts the arguments before the first one that is neither a flag nor the value of one.
func splitWords(args []string) (flags, words []string) {
	takesValue := map[string]bool{"--on": true, "--to": true, "--config": true, "-h": true}
	for _, k := range keys() {
		takesValue["--"+k.name] = k.takesValue()
	}
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return args[:i], args[i+1:]
		}
		if !strings.HasPrefix(args[i], "-") {
			return args[:i], args[i:]
		}
		if takesValue[args[i]] {
			i++
		}
	}
	return args, nil
}

// readQuestion reads the words of the command.
func readQuestion(q *daemon.Question, words []string) error {
	if len(words) < 2 || len(words) > 6 {
		return errors.New("usage: " + explainUsage)
	}
	words = append(words, make([]string, 6-len(words))...)
	q.Caller = words[0]
	procedure, version, found := strings.Cut(words[1], "/")
	q.Procedure = procedure
	if found {
		n, err := strconv.ParseUint(version, 10, 32)
		if err != nil || n < 2 || n > 4 {
			return fmt.Errorf("procedure %q: the versions are 2, 3 and 4", words[1])
		}
		q.Version = uint32(n)
	}
	var err error
	for _, w := range []struct {
		text string
		at   *uint32
	}{{words[2], &q.Program}, {words[3], &q.Vers}} {
		if w.text != "" {
			if *w.at, err = access.ParseProgram(w.text); err != nil {
				return err
			}
		}
	}
	q.Netid, q.Addr = words[4], words[5]
	switch strings.ToLower(procedure) {
	case "callit", "bcast", "indirect": // the fifth word is the procedure to call
		q.Netid = ""
		if words[4] != "" {
			q.Proc, err = access.ParseProgram(words[4])
		}
	case "getport":
		if q.Netid == "" {
			q.Netid = "udp"
		}
	}
	return err
}

func explanationText(e daemon.Explanation) string {
	var b strings.Builder
	line := func(what, text string) { fmt.Fprintf(&b, "%-8s %s\n", what, logging.Escape(text)) }
	line("caller:", e.Caller)
	line("call:", e.Call)
	verdict := "refused"
	if e.Permitted {
		verdict = "permitted"
	}
	line("rule:", verdict+": "+e.Rule)
	for _, n := range e.Notes {
		line("note:", n)
	}
	line("answer:", e.Answer)
	return b.String()
}
