package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string // separated by spaces
		want string // of said, below
	}{
		{"", ""},
		{"-w -f", "foreground warm"},
		{"-wf", "foreground warm"},
		{"-fw", "foreground warm"},
		{"-h 127.0.0.1", "hosts=[127.0.0.1]"},
		{"-h127.0.0.1", "hosts=[127.0.0.1]"},
		{"-wh 127.0.0.1 -h ::1", "warm hosts=[127.0.0.1 ::1]"},
		{"-wfh127.0.0.1", "foreground warm hosts=[127.0.0.1]"},
		{"--host=::1 --host 127.0.0.1", "hosts=[::1 127.0.0.1]"},
		{"-h fe80::1%eth0", "hosts=[fe80::1%eth0]"},
		{"-h *", "hosts=[0.0.0.0 ::]"},
		{"-a -d", "abort debug foreground calls"},
		{"-adfilrsw", "abort debug foreground insecure calls remote drop warm"},
		{"--abort --debug --foreground --insecure --log-calls --remote-calls --drop-privileges --warm-start",
			"abort debug foreground insecure calls remote drop warm"},
		{"--port=1111", "port=1111"},
		{"--port 1111 --socket /x --state-dir y", "port=1111 socket=/x dir=y"},
		{"-w --", "warm"},
		{"-v", "version"},
		{"--version", "version"},
		{"--help --port 1", "help port=0"},
	} {
		o, err := parse(strings.Fields(c.args))
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if got := said(o); got != strings.Replace(c.want, " port=0", "", 1) {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
	}
}

// said names everything in o that isn't zero.
func said(o options) string {
	var words []string
	for _, b := range []struct {
		set  bool
		name string
	}{
		{o.help, "help"}, {o.version, "version"}, {o.abort, "abort"}, {o.debug, "debug"}, {o.foreground, "foreground"},
		{o.Insecure, "insecure"}, {o.LogCalls, "calls"}, {o.RemoteCalls, "remote"}, {o.DropPrivileges, "drop"}, {o.warmStart, "warm"},
	} {
		if b.set {
			words = append(words, b.name)
		}
	}
	for _, v := range []struct {
		value any
		name  string
	}{{o.Hosts, "hosts"}, {o.Port, "port"}, {o.Socket, "socket"}, {o.StateDir, "dir"}} {
		if !reflect.ValueOf(v.value).IsZero() {
			words = append(words, fmt.Sprintf("%s=%v", v.name, v.value))
		}
	}
	return strings.Join(words, " ")
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-x"}, "'x'"},
		{[]string{"-wxf"}, "'x'"},
		{[]string{"-foreground"}, "'o'"},
		{[]string{"--nonsense"}, "--nonsense"},
		{[]string{"-h"}, "argument"},
		{[]string{"-h", ""}, "is not an IP address"},
		{[]string{"-h", "nfs.example"}, `"nfs.example" is not an IP address`},
		{[]string{"-h", "127.0.0.1:111"}, "is not an IP address"},
		{[]string{"-h", "224.0.0.1"}, "multicast"},
		{[]string{"-hw"}, `"w" is not an IP address`},
		{[]string{"--port", "0"}, "from 1 to 65535"},
		{[]string{"--port", "65536"}, "from 1 to 65535"},
		{[]string{"--port", "rpc"}, "from 1 to 65535"},
		{[]string{"--port="}, "--port"},
		{[]string{"--socket="}, "needs a value"},
		{[]string{"--state-dir", ""}, "needs a value"},
		{[]string{"-w", "extra"}, `"extra"`},
		{[]string{"-w", "--", "-f"}, `"-f"`},
		{[]string{"-w", "extra", "-f"}, `"extra"`},
	} {
		if o, err := parse(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, %v; want an error with %s", c.args, o, err, c.want)
		}
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	text := manual("rpcbind")
	for _, w := range strings.Fields("--abort --debug --foreground --host --insecure --log-calls --remote-calls --drop-privileges " +
		"--version --warm-start --help --port --socket --state-dir list unset getaddr firewall --format --table --zone --watch 64 69 70 71 73 75 77 78") {
		if !strings.Contains(text, w) {
			t.Errorf("--help doesn't mention %s", w)
		}
	}
	for _, k := range keys() {
		if !strings.Contains(text, "--"+k.name+" ") {
			t.Errorf("--help doesn't mention --%s", k.name)
		}
	}
	short := help("rpcbind")
	if n := strings.Count(short, "\n"); n > 45 {
		t.Errorf("--help has %d lines, more than fit a screen", n)
	}
	text += short
	if !strings.Contains(text, "Usage: rpcbind ") || strings.Contains(text, "NAME [") {
		t.Errorf("--help doesn't go by the program's name:\n%s", text)
	}
	for _, l := range strings.Split(text, "\n") {
		if len(l) > 110 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
}
