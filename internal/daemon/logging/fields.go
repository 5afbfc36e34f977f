package logging

import (
	"log/slog"
	"strings"
	"time"

	"github.com/gportmap/gportmap/internal/sys"
)

// MessageID is the key of the attribute by which a record says what kind of event it tells of (systemd.journal-fields(7)).
// Only the journal sees it, like every attribute whose key is in capitals.
const MessageID = "MESSAGE_ID"

// Kind is the key of the attribute by which a warning or an error says of what kind it is, where that isn't its message: see
// [Handler.Enough]. No sink sees it.
const Kind = "KIND"

// Facility is the key of the attribute that names another facility of syslog than daemon, and Auth its value for the messages of
// who was let in and who wasn't (syslog(3)). Identifier is the key of that which names another program.
const (
	Facility   = "SYSLOG_FACILITY"
	Auth       = "4"
	Identifier = "SYSLOG_IDENTIFIER"
)

// The events by which the journal can be searched: journalctl MESSAGE_ID=… They never change; docs/logging.md lists them.
const (
	IDStarted = "0dc3a9277c3c4e3ba5fc087b921a4f69"
	IDStopped = "7838ed7d44994b25a5f360be857c7089"
	IDRefused = "e64f5c764af14624883d6663d9cb5189" // a registration was refused
	IDLookup  = "43c9009829604be385e831a2d95b8152" // a lookup was refused
	IDList    = "c34624653ca34d01bf2a9d0eaadabd6b" // a list was refused
	IDRemote  = "28042739447244c4acc746b28fca158e" // a remote call was refused
	IDTaken   = "d647914a59b240c2b15e1970f0241894" // another portmapper's place was taken
	IDState   = "73d460582a664f9c857ff44b13f3af0f" // the state can't be written
)

// journalFields are the attributes that the journal has under another name.
var journalFields = map[string]string{
	"rule": "RULE", "program": "RPC_PROG", "version": "RPC_VERS", "netid": "RPC_NETID", "addr": "RPC_ADDR", "address": "RPC_ADDR",
	"from": "PEER", "owner": "OWNER", "holder": "HOLDER", "unit": "UNIT", "answer": "VERDICT", "err": "ERROR", "error": "ERROR",
}

// A Field is an attribute as the journal gets it.
type Field struct{ Name, Value string }

// A FieldSink is a Sink that takes the attributes beside the text that has them.
type FieldSink interface {
	Sink
	WriteFields(at time.Time, level slog.Level, text string, fields []Field) error
}

// onlyField tells whether an attribute is for the journal alone: its key is in capitals.
func onlyField(key string) bool {
	return key != "" && strings.ToUpper(key) == key && strings.ToLower(key) != key
}

// fieldOf returns the field that an attribute makes, if the journal gets it as one.
func fieldOf(a slog.Attr) (Field, bool) {
	name := journalFields[a.Key]
	if onlyField(a.Key) {
		name = a.Key
	}
	return Field{name, a.Value.Resolve().String()}, name != "" && name != Kind
}

type nativeJournal struct {
	Sink   // for what can't be sent
	tag    string
	send   func(message string, priority int, fields map[string]string) error
	broken bool
}

// NativeJournal returns a Sink that sends to systemd's journal by its own protocol, which has fields. Where it isn't reached,
// in a chroot say, lines go to the other Sink, a stream that the journal reads.
func NativeJournal(tag string, stream Sink) Sink {
	return &nativeJournal{Sink: stream, tag: tag, send: sys.SendJournal}
}

func (s *nativeJournal) WriteLine(at time.Time, level slog.Level, text string) error {
	return s.WriteFields(at, level, text, nil)
}

func (s *nativeJournal) WriteFields(at time.Time, level slog.Level, text string, fields []Field) error {
	if !s.broken {
		named := map[string]string{"SYSLOG_IDENTIFIER": s.tag}
		for _, f := range fields {
			named[f.Name] = f.Value
		}
		err := s.send(text, int(priority(level)), named)
		if err == nil {
			return nil
		}
		s.broken = true // for good: what comes from then on is in one place
	}
	return s.Sink.WriteLine(at, level, text)
}
