package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mode is what rpcinfo is asked to do. At most one may be named.
type mode string

const (
	modeNone      mode = ""          // none is named: modeDump, or modeProgram if there is more than a host
	modeDump      mode = "dump"      // list the registrations
	modeShort     mode = "-s"        // list them, a line for each program
	modeMappings  mode = "-p"        // list those of version 2
	modeStats     mode = "-m"        // show the portmapper's statistics
	modeAddresses mode = "-l"        // list the addresses of a program
	modeTCP       mode = "-t"        // call a program over TCP
	modeUDP       mode = "-u"        // call a program over UDP
	modeAddress   mode = "-a"        // call a program at an address
	modeProgram   mode = "-T"        // call a program over the transport named
	modeBroadcast mode = "-b"        // call a program of every host
	modeDelete    mode = "-d"        // unregister a program
	modeHelp      mode = "--help"    // print the help
	modeVersion   mode = "--version" // print the version
)

// defaultTimeout is what rpcinfo(8) waits for a program; for a portmapper it waits 60 s, and for a connection until
// the kernel gives up after two minutes.
const defaultTimeout = 10 * time.Second

// options are what the arguments say.
type options struct {
	mode     mode
	netid    string // of -T
	hasNetid bool
	address  string // of -a
	port     uint16 // of -n; 0 is none
	timeout  time.Duration
	// hasTimeout says that the user chose it.
	hasTimeout bool
	operands   []string
}

// parse reads the arguments.
func parse(name string, args []string, w world) (*options, error) {
	o := &options{timeout: defaultTimeout}
	g := getopt{name: name, short: "a:bdlmn:pstT:u", posix: w.getenv("POSIXLY_CORRECT") != "", stderr: w.stderr,
		long: map[string]string{"timeout": "DURATION", "help": "", "version": ""}}
	conflict := false
	choose := func(m mode) {
		conflict = conflict || o.mode != modeNone
		o.mode = m
	}
	operands, err := g.parse(args, func(name, value string) (err error) {
		switch name {
		case "a":
			o.address = value
			choose(modeAddress)
		case "n":
			o.port, err = parsePort(value)
		case "T":
			o.netid, o.hasNetid = value, true
		case "timeout":
			o.hasTimeout = true
			o.timeout, err = parseDuration("--timeout", value)
		case "help", "version":
			o.mode, conflict = mode("--"+name), false
		default:
			choose(mode("-" + name))
		}
		return err
	})
	o.operands = operands
	switch {
	case err != nil:
		return nil, err
	case o.mode == modeHelp || o.mode == modeVersion:
		return o, nil
	case g.wrong || conflict || o.mode == modeAddress && !o.hasNetid || o.mode == modeMappings && o.port != 0:
		return nil, errUsage
	case o.mode == modeNone && len(operands) > 1:
		o.mode = modeProgram
	case o.mode == modeNone:
		o.mode = modeDump
	}
	return o, nil
}

func parsePort(s string) (uint16, error) {
	v, ok := strtol(s)
	if !ok || v < 0 || v > 0xffff {
		return 0, fmt.Errorf("rpcinfo: %s is illegal port number", s)
	}
	return uint16(v), nil
}

// parseDuration reads a duration, or a number of seconds.
func parseDuration(option, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, err2 := strconv.ParseFloat(s, 64); err2 == nil && seconds < 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("rpcinfo: %s %s: give seconds, or a duration as 500ms or 1m", option, s)
	}
	return d, nil
}

// strtol reads a decimal number as strtol(3) does it, with white space before it, and nothing behind it.
func strtol(s string) (int64, bool) {
	v, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 64)
	return v, err == nil
}

// program reads a program's number, or its name.
func (a *asker) program(s string) (uint32, error) {
	digits := strings.TrimLeft(s, "0123456789")
	if len(digits) > 1 || digits != "" && isLetter(digits[0]) {
		number, ok := a.names.number[s]
		if !ok {
			return 0, fmt.Errorf("rpcinfo: %s is unknown service", s)
		}
		return number, nil
	}
	v, ok := strtol(s)
	if !ok || v > 1<<32-1 {
		return 0, fmt.Errorf("rpcinfo: %s is illegal program number", s)
	}
	return uint32(v), nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// parseVersion reads a version's number; as in rpcinfo(8), -1 is the highest.
func parseVersion(s string) (uint32, error) {
	v, ok := strtol(s)
	if !ok || v < -1<<31 || v > 1<<32-1 {
		return 0, fmt.Errorf("rpcinfo: %s is illegal version number", s)
	}
	return uint32(v), nil
}
