package main

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gportmap/gportmap/pkg/oncrpc"
)

// screen is a terminal of one line that is drawn on: what stands there after each write.
type screen struct {
	mu    sync.Mutex
	line  string
	shown []string
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line += string(p)
	if i := strings.LastIndex(s.line, clearLine); i >= 0 {
		s.line = s.line[i+len(clearLine):]
	}
	s.shown = append(s.shown, s.line)
	return len(p), nil
}

func (s *screen) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.line
}

func TestBar(t *testing.T) {
	s := &screen{}
	w := testWorld(t)
	w.stderr, w.terminal, w.columns = s, true, func() int { return 80 }
	b := newBar(w, 4)
	for i := range 4 {
		b.add(i == 1)
	}
	b.end()
	want := []string{
		"[" + strings.Repeat(".", 30) + "] 0 of 4 hosts",
		"[" + strings.Repeat("#", 7) + strings.Repeat(".", 23) + "] 1 of 4 hosts",
		"[" + strings.Repeat("#", 15) + strings.Repeat(".", 15) + "] 2 of 4 hosts, 1 failed",
		"[" + strings.Repeat("#", 22) + strings.Repeat(".", 8) + "] 3 of 4 hosts, 1 failed",
		"",
	}
	if got := strings.Join(s.shown, "|"); got != strings.Join(want, "|") {
		t.Errorf("shown: %q", s.shown)
	}
	w.columns = func() int { return 20 }
	if newBar(w, 4); s.line != "0/4" {
		t.Errorf("on a narrow terminal: %q", s.line)
	}
}

// A host that is done while another's answer is printed doesn't put the bar into it.
func TestBarKeepsOut(t *testing.T) {
	const hosts = 2000
	s := &screen{}
	w := testWorld(t)
	w.stderr, w.terminal, w.columns = s, true, func() int { return 80 }
	b := newBar(w, hosts)
	var done sync.WaitGroup
	done.Go(func() {
		for range hosts - 1 {
			b.add(false)
		}
	})
	for range hosts {
		err := b.without(func() error {
			runtime.Gosched()
			fmt.Fprint(s, "answer\n")
			if s.now() != "answer\n" {
				t.Errorf("an answer's line: %q", s.now())
			}
			return nil
		})
		if err != nil || t.Failed() {
			break
		}
		fmt.Fprint(s, clearLine)
	}
	done.Wait()
	b.end()
	b.add(false)
	if s.now() != "" {
		t.Errorf("at the end: %q", s.now())
	}
}

// The bar is gone from the terminal when the answers are there, and is nowhere else.
func TestBarOfHosts(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		w := testWorld(t)
		portmapper(t, &w, map[uint32]oncrpc.Procedures{3: dumped(registered...)})
		s := &screen{}
		var stdout bytes.Buffer
		w.stdout, w.stderr, w.terminal, w.columns = &stdout, s, terminal, func() int { return 80 }
		if code := run(context.Background(), []string{"rpcinfo", "-s", "127.0.0.1", "127.1", "127.0.1"}, w); code != 0 {
			t.Fatalf("exit %d: %q", code, s.shown)
		}
		if s.line != "" || (len(s.shown) > 0) != terminal {
			t.Errorf("terminal %v: %q was shown", terminal, s.shown)
		}
		if n := strings.Count(stdout.String(), shortOfRegistered); n != 3 {
			t.Errorf("%d of 3 lists:\n%s", n, stdout.String())
		}
	}
}

// What rpcinfo(8) doesn't tell is told to people alone.
func TestHints(t *testing.T) {
	w := testWorld(t)
	const line = "nosuch.invalid: RPC: Unknown host\n"
	got := runIn(t, w, "-u nosuch.invalid nfs")
	if got.stderr != line || got.code != 1 {
		t.Errorf("exit %d: %s", got.code, got.stderr)
	}
	w.terminal = true
	got = runIn(t, w, "-u nosuch.invalid nfs")
	if !strings.HasPrefix(got.stderr, line+"(") || !strings.Contains(got.stderr, "nosuch.invalid") || !strings.HasSuffix(got.stderr, ")\n") {
		t.Errorf("on a terminal: %s", got.stderr)
	}
}
