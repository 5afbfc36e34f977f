package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/access"
	"github.com/gportmap/gportmap/internal/config"
	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A key is a setting: by its name in the configuration file, and with two dashes before it on the command line.
type key struct {
	name  string
	short string // rpcbind's letter for it
	form  config.Form
	live  bool // a reload applies it to a daemon that runs; the others take a start
	set   func(o *options, values []string) error
}

func (k key) takesValue() bool { return k.form != config.Boolean }

// keys are all settings that are flags as well.
func keys() []key {
	list := []key{
		{"host", "h", config.List, false, func(o *options, v []string) (err error) {
			o.Hosts, err = parseHosts(v)
			return err
		}},
		{"free-bind", "", config.Boolean, false, boolean(func(o *options) *bool { return &o.FreeBind })},
		{"port", "", config.Number, false, func(o *options, v []string) (err error) {
			o.Port, err = parsePort(v[0])
			return err
		}},
		{"socket", "", config.Text, false, text(func(o *options) *string { return &o.Socket })},
		{"state-dir", "", config.Text, false, text(func(o *options) *string { return &o.StateDir })},
		{"insecure", "i", config.Boolean, false, boolean(func(o *options) *bool { return &o.Insecure })},
		{"log-calls", "l", config.Boolean, false, boolean(func(o *options) *bool { return &o.LogCalls })},
		{"rpcbind-messages", "", config.Boolean, false, boolean(func(o *options) *bool { return &o.RPCBindMessages })},
		{"remote-calls", "r", config.Boolean, false, boolean(func(o *options) *bool { return &o.RemoteCalls })},
		{"drop-privileges", "s", config.Boolean, false, boolean(func(o *options) *bool { return &o.DropPrivileges })},
		{"user", "", config.Text, false, func(o *options, v []string) error {
			o.DropPrivileges = true
			return text(func(o *options) *string { return &o.User })(o, v)
		}},
		{"admin-group", "", config.Text, false, text(func(o *options) *string { return &o.AdminGroup })},
		{"metrics", "", config.Text, false, func(o *options, v []string) (err error) {
			o.Metrics, err = parseMetrics(v[0])
			return err
		}},

		{"exposure", "", config.Text, true, func(o *options, v []string) (err error) {
			o.Rules.Exposure, err = access.ParseExposure(v[0])
			return err
		}},
		{"udp-lists", "", config.Text, true, func(o *options, v []string) (err error) {
			o.Rules.UDPLists, err = access.ParseUDPLists(v[0])
			return err
		}},
		{"allow", "", config.List, true, listKey(access.ParseRule, func(o *options) *[]access.Rule { return &o.Rules.Allow })},
		{"deny", "", config.List, true, listKey(access.ParseRule, func(o *options) *[]access.Rule { return &o.Rules.Deny })},
		{"root-only", "", config.List, true, listKey(access.ParseProgram, func(o *options) *[]uint32 { return &o.Rules.RootOnly })},
		{"remote-call-to", "", config.List, true,
			listKey(access.ParseRemoteTarget, func(o *options) *[]access.RemoteTarget { return &o.Rules.RemoteCalls })},
		{"strict-set", "", config.Boolean, true, boolean(func(o *options) *bool { return &o.Rules.StrictSet })},
	}
	return append(list, limitKeys()...)
}

// fileKeys are the settings that only the configuration file has.
func fileKeys() []key {
	return []key{
		{"static", "", config.List, true, func(o *options, v []string) error {
			if err := listKey(daemon.ParseStatic, func(o *options) *[]rpcbind.RPCB { return &o.Static })(o, v); err != nil {
				return err
			}
			return daemon.CheckStatics(o.Static)
		}},
		{"pin", "", config.List, true, listKey(access.ParsePin, func(o *options) *[]access.Pin { return &o.Rules.Pins })},
	}
}

// many is more than anybody wants.
const many = 1 << 30

// limitKeys are the settings that bound something.
func limitKeys() []key {
	return []key{
		{"answer-rate", "", config.Number, true, orNone(func(o *options) *int { return &o.Limits.AnswerRate })},
		{"max-registrations", "", config.Number, true, number(1, many, func(o *options) *int { return &o.Limits.Registrations })},
		{"max-registrations-per-owner", "", config.Number, true, number(1, many, func(o *options) *int { return &o.Limits.RegistrationsPerOwner })},
		{"max-connections", "", config.Number, true, number(1, many, func(o *options) *int { return &o.Limits.Connections })},
		{"max-connections-each", "", config.Number, true, number(1, many, func(o *options) *int { return &o.Limits.ConnectionsEach })},
		{"max-record", "", config.Number, true, number(400, 1<<20, func(o *options) *int { return &o.Limits.RecordOctets })},
		{"max-calls-in-flight", "", config.Number, true, number(1, 10_000, func(o *options) *int { return &o.Limits.CallsInFlight })},
		{"max-lookup-stats", "", config.Number, false, number(1, 48, func(o *options) *int { return &o.Limits.LookupStats })},
		{"max-remote-stats", "", config.Number, false, number(1, 24, func(o *options) *int { return &o.Limits.RemoteStats })},
		{"max-log-lines", "", config.Number, true, orNone(func(o *options) *int { return &o.Limits.LogLines })},
		{"idle-timeout", "", config.Text, true, seconds(func(o *options) *time.Duration { return &o.Limits.IdleTimeout })},
		{"record-timeout", "", config.Text, true, seconds(func(o *options) *time.Duration { return &o.Limits.RecordTimeout })},
		{"max-string", "", config.Number, true, number(64, 9000, func(o *options) *int { return &o.Limits.StringOctets })},
	}
}

func boolean(at func(*options) *bool) func(*options, []string) error {
	return func(o *options, v []string) error {
		b, err := strconv.ParseBool(v[0])
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v[0])
		}
		*at(o) = b
		return nil
	}
}

func text(at func(*options) *string) func(*options, []string) error {
	return func(o *options, v []string) error {
		if v[0] == "" {
			return fmt.Errorf("needs a value")
		}
		*at(o) = v[0]
		return nil
	}
}

func number(least, most int, at func(*options) *int) func(*options, []string) error {
	return func(o *options, v []string) error {
		n, err := strconv.Atoi(v[0])
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q: give a number from %d to %d", v[0], least, most)
		}
		*at(o) = n
		return nil
	}
}

// orNone reads a number, of which 0 says that there is no limit.
func orNone(at func(*options) *int) func(*options, []string) error {
	return func(o *options, v []string) error {
		err := number(0, many, at)(o, v)
		if *at(o) == 0 {
			*at(o) = -1 // 0 is the default there
		}
		return err
	}
}

// seconds reads a time, as "35s" or "6m".
func seconds(at func(*options) *time.Duration) func(*options, []string) error {
	return func(o *options, v []string) error {
		d, err := time.ParseDuration(v[0])
		if err != nil || d < time.Second || d > 24*time.Hour {
			return fmt.Errorf("%q: give a time from 1s to 24h, as 35s or 6m", v[0])
		}
		*at(o) = d
		return nil
	}
}

// listKey reads each value by parse. An empty list isn't nil: it is known to be empty.
func listKey[T any](parse func(string) (T, error), at func(*options) *[]T) func(*options, []string) error {
	return func(o *options, values []string) error {
		parsed := make([]T, 0, len(values))
		for _, v := range values {
			t, err := parse(v)
			if err != nil {
				return err
			}
			parsed = append(parsed, t)
		}
		*at(o) = parsed
		return nil
	}
}

// A setting is a key on the command line: a [pflag.Value] that keeps what was said, because the file comes first.
type setting struct {
	key
	values []string
}

// Set takes a value; that of a list is one more, else the last one counts.
func (s *setting) Set(v string) error {
	if s.form != config.List {
		s.values = s.values[:0]
	}
	s.values = append(s.values, v)
	// Wrong values are told by the flag that has them.
	return s.set(new(options), s.values)
}

func (s *setting) String() string { return strings.Join(s.values, " ") }

// Type is the word for the value in the help that pflag makes.
func (s *setting) Type() string { return "value" }
