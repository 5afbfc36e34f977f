package logging

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// priority returns the syslog priority of a level, without a facility.
func priority(level slog.Level) syslog.Priority {
	switch {
	case level >= slog.LevelError:
		return syslog.LOG_ERR
	case level >= slog.LevelWarn:
		return syslog.LOG_WARNING
	case level >= slog.LevelInfo:
		return syslog.LOG_INFO
	}
	return syslog.LOG_DEBUG
}

// Stderr returns the Sink for a standard error: [NativeJournal] if systemd's journal reads it, else [Text].
func Stderr(f *os.File, tag string) Sink {
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return NativeJournal(tag, Journal(f))
	}
	return Text(f)
}

// isJournal tells whether f is the stream that JOURNAL_STREAM names by "device:inode" in decimal (systemd.exec(5)). The
// variable alone proves nothing: a child whose standard error was redirected inherits it too.
func isJournal(f *os.File, stream string) bool {
	dev, ino, ok := strings.Cut(stream, ":")
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && dev == strconv.FormatUint(uint64(st.Dev), 10) && ino == strconv.FormatUint(st.Ino, 10)
}

type journal struct{ w io.Writer }

// Journal returns a Sink for a stream that systemd's journal reads: each line has its priority before it, as <6>, and no
// time, since the journal adds its own (sd-daemon(3)).
func Journal(w io.Writer) Sink { return journal{w} }

func (s journal) WriteLine(_ time.Time, level slog.Level, text string) error {
	_, err := fmt.Fprintf(s.w, "<%d>%s\n", priority(level), text)
	return err
}

type text struct{ w io.Writer }

// Text returns a Sink for people: each line has the local time and the level before it.
func Text(w io.Writer) Sink { return text{w} }

func (s text) WriteLine(at time.Time, level slog.Level, text string) error {
	b := bytes.NewBuffer(make([]byte, 0, 128))
	b.WriteString(at.Format("2006-01-02T15:04:05.000Z07:00"))
	fmt.Fprintf(b, " %-5s %s\n", level, text)
	_, err := s.w.Write(b.Bytes())
	return err
}

type syslogSink struct {
	tag     string
	writers map[syslogSource]*syslog.Writer
}

// A syslogSource is what a line of syslog says of where it comes from.
type syslogSource struct {
	facility syslog.Priority
	tag      string
}

// Syslog returns a Sink that sends lines to the syslog daemon of this host under facility daemon, unless their fields name
// another. One that isn't there, or not yet, is looked for again with each line.
func Syslog(tag string) Sink { return &syslogSink{tag, make(map[syslogSource]*syslog.Writer)} }

func (s *syslogSink) WriteLine(at time.Time, level slog.Level, text string) error {
	return s.WriteFields(at, level, text, nil)
}

func (s *syslogSink) WriteFields(_ time.Time, level slog.Level, text string, fields []Field) error {
	from := syslogSource{syslog.LOG_DAEMON, s.tag}
	for _, f := range fields {
		switch {
		case f.Name == Facility && f.Value == Auth:
			from.facility = syslog.LOG_AUTH
		case f.Name == Identifier:
			from.tag = f.Value
		}
	}
	w := s.writers[from]
	if w == nil {
		var err error
		if w, err = syslog.New(from.facility|syslog.LOG_INFO, from.tag); err != nil {
			return err
		}
		s.writers[from] = w
	}
	switch priority(level) {
	case syslog.LOG_ERR:
		return w.Err(text)
	case syslog.LOG_WARNING:
		return w.Warning(text)
	case syslog.LOG_INFO:
		return w.Info(text)
	}
	return w.Debug(text)
}
