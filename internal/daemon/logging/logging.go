// Package logging is the daemon's log: a [log/slog] handler that writes one line a record and never makes the one who
// logs wait for whoever reads.
//
// A record is formatted where it is logged, put into a bounded queue and written by one goroutine. When the queue is full
// the line is dropped and counted, and the count is logged as soon as there is room. What callers of the daemon say may
// stand in a record: everything unprintable is escaped, so that nobody forges lines or drives a terminal.
package logging

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// queueLines is how many lines may wait to be written.
const queueLines = 1024

// flushLimit bounds how long Close waits for lines to be written: a daemon must end also if its log's reader hangs.
const flushLimit = 2 * time.Second

// A Sink writes lines, one call after the other.
type Sink interface {
	// WriteLine writes one line. The text has neither control characters nor a line feed at its end.
	WriteLine(at time.Time, level slog.Level, text string) error
}

// Handler is a [slog.Handler] in front of a Sink.
type Handler struct {
	queue  *queue
	level  slog.Level
	prefix string // of keys: the open groups
	attrs  string // formatted, each behind a space
	fields []Field
}

type line struct {
	at     time.Time
	level  slog.Level
	text   string
	fields []Field
}

type queue struct {
	sink    Sink
	fields  FieldSink // the sink, if it takes fields
	repeats repeats
	lines   chan line
	dropped atomic.Uint64
	rate    rate
	stop    chan struct{}
	stopped sync.Once
	done    chan struct{}
}

// New returns a Handler for records of at least this level. Its Close flushes and ends its goroutine.
func New(sink Sink, level slog.Level) *Handler {
	q := &queue{sink: sink, lines: make(chan line, queueLines), stop: make(chan struct{}), done: make(chan struct{})}
	q.fields, _ = sink.(FieldSink)
	q.rate.over = make(chan struct{}, 1)
	go q.write()
	return &Handler{queue: q, level: level}
}

// Close writes what is queued, for at most two seconds, and ends the log: later records are dropped.
func (h *Handler) Close() {
	q := h.queue
	q.stopped.Do(func() { close(q.stop) })
	select {
	case <-q.done:
	case <-time.After(flushLimit):
	}
}

func (q *queue) write() {
	defer close(q.done)
	var over <-chan time.Time
	for {
		select {
		case <-q.rate.over:
			q.reportSuppressed()
		case l := <-q.lines:
			q.writeLine(l)
			if over == nil {
				over = q.repeats.wait()
			}
		case <-over:
			q.reportRepeats(time.Now())
			over = q.repeats.wait()
		case <-q.stop:
			for {
				select {
				case l := <-q.lines:
					q.writeLine(l)
				default:
					q.reportRepeats(time.Time{})
					q.reportDropped()
					q.reportSuppressed()
					return
				}
			}
		}
	}
}

// writeLine ignores errors: there is nowhere left to report them.
func (q *queue) writeLine(l line) {
	q.sendLine(l)
	q.reportDropped()
}

func (q *queue) sendLine(l line) {
	if q.fields != nil {
		_ = q.fields.WriteFields(l.at, l.level, l.text, l.fields)
		return
	}
	_ = q.sink.WriteLine(l.at, l.level, l.text)
}

func (q *queue) reportRepeats(now time.Time) {
	for _, l := range q.repeats.due(now) {
		q.sendLine(l)
	}
}

func (q *queue) reportDropped() {
	if n := q.dropped.Swap(0); n > 0 {
		text := fmt.Sprintf("%d log lines were dropped because they came faster than the log took them", n)
		_ = q.sink.WriteLine(time.Now(), slog.LevelWarn, text)
	}
}

func (q *queue) put(l line) {
	select {
	case q.lines <- l:
	default:
		q.dropped.Add(1)
	}
}

// Enabled tells whether records of a level are written.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Enough tells whether one more warning of a kind, its message or the attribute [Kind], would be left out because there were
// many, and then counts it as if it had been logged. So who logs for each of many callers needn't build a record in vain.
func (h *Handler) Enough(kind string) bool { return h.queue.repeats.enough(kind) }

// Handle queues a record. It never blocks and never fails.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	kind := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == Kind {
			kind = a.Value.String()
		}
		return a.Key != Kind
	})
	if !h.queue.repeats.pass(r.Time, r.Level, kind) {
		return nil
	}
	var b strings.Builder
	appendEscaped(&b, r.Message)
	b.WriteString(h.attrs)
	var fields []Field
	if h.queue.fields != nil {
		fields = append(fields, h.fields...)
	}
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		if h.queue.fields != nil {
			if f, ok := fieldOf(a); ok && h.prefix == "" {
				fields = append(fields, f)
			}
		}
		return true
	})
	if r.Level < slog.LevelError && !h.queue.rate.take(r.Time) {
		return nil
	}
	h.queue.put(line{at: r.Time, level: r.Level, text: b.String(), fields: fields})
	return nil
}

// WithAttrs returns a Handler that adds attributes to every record.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	fields := slices.Clone(h.fields)
	for _, a := range attrs {
		appendAttr(&b, h.prefix, a)
		if f, ok := fieldOf(a); ok && h.prefix == "" {
			fields = append(fields, f)
		}
	}
	return &Handler{queue: h.queue, level: h.level, prefix: h.prefix, attrs: b.String(), fields: fields}
}

// WithGroup returns a Handler that puts the name and a dot before the keys of further attributes.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &Handler{queue: h.queue, level: h.level, prefix: h.prefix + name + ".", attrs: h.attrs, fields: h.fields}
}

// appendAttr appends " key=value", and a group's attributes one by one.
func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			appendAttr(b, prefix, inner)
		}
		return
	}
	if a.Key == "" || onlyField(a.Key) {
		return
	}
	b.WriteByte(' ')
	appendEscaped(b, prefix+a.Key)
	b.WriteByte('=')
	s := v.String()
	if needsQuotes(s) {
		s = strconv.Quote(s)
	}
	b.WriteString(s)
}

// needsQuotes tells whether a value could be taken for several, or for part of a key.
func needsQuotes(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return true
	}
	return strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || r == '\\' || !unicode.IsPrint(r)
	})
}

// Escape returns s with everything unprintable, and every octet that isn't UTF-8, written as Go's escape sequences. A
// backslash stays one: the result is to be read, not to be decoded.
func Escape(s string) string {
	var b strings.Builder
	appendEscaped(&b, s)
	return b.String()
}

func appendEscaped(b *strings.Builder, s string) {
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
}
