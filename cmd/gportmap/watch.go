package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/daemon"
)

// What an xterm and everything like it understands (ECMA-48, and xterm's alternate screen).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	eraseLine   = "\x1b[2K" // before a line: behind one that is as wide as the screen it would take its last character
	endOfScreen = "\x1b[J"
)

// plainWidth is how wide the view is where there is no terminal.
const plainWidth = 100

// watch shows how the daemon is, again and again: on a terminal as a view that stays, else as text, with --json a document
// a line.
func watch(ctx context.Context, o options, f controlFlags, stdout io.Writer) (int, error) {
	if f.interval < 100*time.Millisecond {
		return daemon.ExitUsage, fmt.Errorf("watch: --interval %v: give at least 100ms", f.interval)
	}
	w := &watcher{options: o, flags: f, out: stdout, keys: make(chan byte), resized: make(chan os.Signal, 1)}
	if file, ok := stdout.(*os.File); ok && !f.json && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		w.screen = file
	}
	// A second signal ends at once, also if the terminal doesn't take what is written.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := w.run(ctx); err != nil {
		return daemon.ExitCode(err), err
	}
	return daemon.ExitOK, nil
}

// A watcher shows a running daemon.
type watcher struct {
	options options
	flags   controlFlags
	out     io.Writer
	screen  *os.File // the terminal; nil if there is none
	keys    chan byte
	resized chan os.Signal

	last, now admin.Status
	answered  bool // now is an answer
	paused    bool
}

func (w *watcher) run(ctx context.Context) error {
	if w.screen != nil {
		leave := w.enter()
		defer leave()
	}
	tick := time.NewTicker(w.flags.interval)
	defer tick.Stop()
	for shown := 1; ; shown++ {
		if !w.paused || !w.answered {
			if err := w.ask(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := w.show(); err != nil {
			return err
		}
		if w.flags.count > 0 && shown >= w.flags.count {
			return nil
		}
		if !w.wait(ctx, tick.C) {
			return nil
		}
	}
}

// wait returns true when it is time to ask again, and false when it is time to end.
func (w *watcher) wait(ctx context.Context, tick <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case <-w.resized:
		case key := <-w.keys:
			switch key {
			case 'q', 'Q', 3, 4, 27: // ^C and ^D, which a raw terminal doesn't make signals of; Escape
				return false
			case ' ', 'p':
				w.paused = !w.paused
			}
		}
		if w.show() != nil {
			return false
		}
	}
}

// enter takes the terminal over, and returns the function that gives it back.
func (w *watcher) enter() (leave func()) {
	signal.Notify(w.resized, syscall.SIGWINCH)
	restore := func() {}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		if state, err := term.MakeRaw(in); err == nil {
			restore = func() { _ = term.Restore(in, state) }
			go func() {
				var b [1]byte
				for {
					if n, err := os.Stdin.Read(b[:]); n == 0 || err != nil {
						return // it lasts as long as the process if no key is pressed
					}
					w.keys <- b[0]
				}
			}()
		}
	}
	fmt.Fprint(w.screen, enterScreen)
	return func() {
		fmt.Fprint(w.screen, leaveScreen)
		restore()
		signal.Stop(w.resized)
	}
}

// ask asks the daemon. One that was asked before and gives no answer is being restarted, perhaps.
func (w *watcher) ask(ctx context.Context) error {
	s, err := daemon.AskStatus(ctx, w.options.Config)
	switch {
	case err == nil && w.answered && s.PID == w.now.PID && s.Started.Equal(w.now.Started):
		w.last, w.now = w.now, s
	case err == nil:
		w.last, w.now, w.answered = s, s, true // of another process nothing can be compared
	case errors.Is(err, fs.ErrPermission):
		return daemon.WithExitCode(daemon.ExitPermission, fmt.Errorf("watch: %w; only root may, and the group of the daemon's --admin-group", err))
	case !w.answered:
		return daemon.WithExitCode(daemon.ExitUnavailable, fmt.Errorf("watch: %w; is gportmap running? See the command status", err))
	}
	return nil
}

func (w *watcher) show() error {
	if w.flags.json {
		return json.NewEncoder(w.out).Encode(w.now)
	}
	v := view{last: w.last, now: w.now, paused: w.paused, width: plainWidth}
	if w.screen == nil {
		_, err := io.WriteString(w.out, strings.Join(v.lines(), "\n")+"\n\n")
		return err
	}
	width, height, err := term.GetSize(int(w.screen.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	v.width, v.height, v.keys = width, height, true
	v.colour = os.Getenv("NO_COLOR") == ""
	var b bytes.Buffer
	b.WriteString(home)
	for i, l := range v.lines() {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(eraseLine + l)
	}
	b.WriteString(endOfScreen)
	_, err = w.screen.Write(b.Bytes())
	return err
}
