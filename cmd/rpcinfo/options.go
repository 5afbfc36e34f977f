package main

import (
	"errors"
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

// shortestInterval is the shortest time between two pings, or two looks at a portmapper.
const shortestInterval = 10 * time.Millisecond

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
	json       bool
	watch      bool
	ping       bool
	count      int           // of pings, or of looks after the first; 0 is no end
	interval   time.Duration // between them; 0 is the default

	operands  []string
	hostsFile string
	hosts     []string // to be asked; none is this one
	args      []string // the operands that name a program and a version
}

// parse reads the arguments.
func parse(name string, args []string, w world) (*options, error) {
	o := &options{timeout: defaultTimeout}
	_, posix := w.lookupEnv("POSIXLY_CORRECT")
	g := getopt{name: name, short: "a:bdlmn:pstT:u", posix: posix, stderr: w.stderr,
		long: map[string]string{"timeout": "DURATION", "hosts": "FILE", "json": "", "watch": "", "ping": "", "count": "N",
			"interval": "DURATION", "help": "", "version": ""}}
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
		case "help", "version":
			o.mode, conflict = mode("--"+name), false
		default:
			if len(name) == 1 {
				choose(mode("-" + name))
				break
			}
			err = o.setLong(name, value)
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
	}
	return o, o.complete()
}

// setLong sets an option that rpcinfo(8) doesn't have.
func (o *options) setLong(name, value string) (err error) {
	switch name {
	case "timeout":
		o.hasTimeout = true
		o.timeout, err = parseDuration("--timeout", value)
	case "interval":
		o.interval, err = parseDuration("--interval", value)
	case "count":
		if o.count, err = strconv.Atoi(value); err != nil || o.count < 1 {
			err = fmt.Errorf("rpcinfo: --count %s: give a number from 1 on", value)
		}
	case "hosts":
		o.hostsFile = value
	case "json":
		o.json = true
	case "watch":
		o.watch = true
	case "ping":
		o.ping = true
	}
	return err
}

// complete finds out what the operands are.
func (o *options) complete() error {
	if o.mode == modeNone {
		o.mode = modeDump
		if len(o.operands) > 1 || o.hostsFile != "" && o.hasNetid && len(o.operands) > 0 {
			o.mode = modeProgram
		}
	}
	least, most := 1, 2
	o.args = o.operands
	switch o.mode {
	case modeDump, modeShort, modeMappings, modeStats:
		o.hosts, o.args, least = o.operands, nil, 0
	case modeTCP, modeUDP, modeProgram, modeAddresses:
		if o.hostsFile == "" && len(o.operands) > 0 {
			o.hosts, o.args = o.operands[:1], o.operands[1:]
		}
	}
	if o.mode == modeAddresses || o.mode == modeBroadcast || o.mode == modeDelete {
		least = 2
	}
	if len(o.args) < least || len(o.args) > most || o.mode == modeProgram && !o.hasNetid {
		return errUsage
	}
	return o.fit()
}

// fit tells of options that don't fit the mode.
func (o *options) fit() error {
	calls := o.mode == modeTCP || o.mode == modeUDP || o.mode == modeProgram || o.mode == modeAddress
	switch {
	case o.hostsFile != "" && (o.mode == modeAddress || o.mode == modeBroadcast || o.mode == modeDelete):
		return fmt.Errorf("rpcinfo: --hosts: %s asks no host; see --help", o.mode)
	case o.ping && !calls:
		return errors.New("rpcinfo: --ping: tell what to call by -u, -t, -T or -a; see --help")
	case o.watch && (o.mode != modeDump || len(o.hosts) > 1 || o.hostsFile != ""):
		return errors.New("rpcinfo: --watch: it lists the registrations of one host, without -s, -p and the like; see --help")
	case !o.watch && !o.ping && (o.count != 0 || o.interval != 0):
		return errors.New("rpcinfo: --count and --interval are for --ping and --watch; see --help")
	case o.interval != 0 && o.interval < shortestInterval:
		return fmt.Errorf("rpcinfo: --interval: at least %v", shortestInterval)
	}
	return nil
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
