package main

import (
	"fmt"
	"io"
	"strings"
)

// getopt reads arguments as getopt(3) of glibc does it, which decides what rpcinfo's users may write: options may stand
// behind operands (not with POSIXLY_CORRECT), be bundled (-Tudp, -sT udp), and wrong ones are told of, all of them, before
// the usage follows. Flag libraries stop at the first and have texts of their own.
type getopt struct {
	name   string            // in messages, as it was called
	short  string            // letters; one with a value has a : behind it
	long   map[string]string // names without --; with a value, what it is called in messages, else ""
	posix  bool              // the first operand ends the options
	stderr io.Writer
	wrong  bool // something was told of
}

// parse calls found for every option in turn, which ends it by an error, and returns the operands.
func (g *getopt) parse(args []string, found func(name, value string) error) (operands []string, err error) {
	for len(args) > 0 && err == nil {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(operands, args...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			if g.posix {
				return append([]string{arg}, args...), nil
			}
			operands = append(operands, arg)
		case strings.HasPrefix(arg, "--"):
			args, err = g.parseLong(arg[2:], args, found)
		default:
			args, err = g.parseShort(arg[1:], args, found)
		}
	}
	return operands, err
}

// parseShort reads the letters of one argument, and the next one if that is a value.
func (g *getopt) parseShort(letters string, args []string, found func(name, value string) error) ([]string, error) {
	for i := range len(letters) {
		name, value := letters[i:i+1], ""
		at := strings.Index(g.short, name)
		switch {
		case name == ":" || at < 0:
			g.tell("invalid option -- '%s'", printable(name))
			continue
		case strings.HasPrefix(g.short[at+1:], ":"):
			value = letters[i+1:]
			if value == "" && len(args) == 0 {
				g.tell("option requires an argument -- '%s'", name)
				return args, nil
			}
			if value == "" {
				value, args = args[0], args[1:]
			}
			return args, found(name, value)
		}
		if err := found(name, ""); err != nil {
			return args, err
		}
	}
	return args, nil
}

// parseLong reads one argument, and the next one if that is a value.
func (g *getopt) parseLong(arg string, args []string, found func(name, value string) error) ([]string, error) {
	name, value, joined := strings.Cut(arg, "=")
	what, ok := g.long[name]
	switch {
	case !ok:
		g.tell("unrecognized option '--%s'", printable(arg))
		return args, nil
	case what == "" && joined:
		g.tell("option '--%s' doesn't allow an argument", name)
		return args, nil
	case what != "" && !joined && len(args) == 0:
		g.tell("option '--%s' requires an argument", name)
		return args, nil
	case what != "" && !joined:
		value, args = args[0], args[1:]
	}
	return args, found(name, value)
}

func (g *getopt) tell(format string, a ...any) {
	g.wrong = true
	fmt.Fprintf(g.stderr, "%s: %s\n", printable(g.name), fmt.Sprintf(format, a...))
}
