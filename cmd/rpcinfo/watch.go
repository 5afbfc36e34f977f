package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// watchInterval is how often the registrations are looked at unless --interval says something else.
const watchInterval = time.Second

// Events of a watch, with the signs that stand before their lines.
const (
	eventListed       = "listed"       // it was there at the begin
	eventRegistered   = "registered"   // +
	eventUnregistered = "unregistered" // -
	eventSilent       = "unreachable"  // !
	eventBack         = "reachable"    // !
)

// watchIndent is as wide as the time and the sign of an event.
const watchIndent = "           "

// watcher tells of registrations that come and go. A change of address or owner is a - and a +.
type watcher struct {
	a      *asker
	client *client
	known  []rpcbind.RPCB
	begun  bool
	silent error // why there was no answer the last time
}

// watch lists the registrations, and then tells of each that comes or goes, until it is interrupted or has looked so many
// times. The portmapper may go and come back meanwhile.
func (a *asker) watch(ctx context.Context) error {
	w := &watcher{a: a}
	defer w.close()
	interval := a.opt.interval
	if interval == 0 {
		interval = watchInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for looks := 0; ; looks++ {
		if err := w.look(ctx); err != nil {
			return err
		}
		if a.opt.count != 0 && looks == a.opt.count {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	if w.silent != nil {
		return errFailed
	}
	return nil
}

func (w *watcher) close() {
	if w.client != nil {
		w.client.close()
		w.client = nil
	}
}

// look asks once and tells of the changes. The error is one of printing, or that of the first question.
func (w *watcher) look(ctx context.Context) error {
	list, err := w.ask(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil && !w.begun:
		return err
	case err != nil && w.silent == nil:
		w.silent = err
		return w.tell(eventSilent, err.Error(), nil)
	case err != nil:
		return nil
	case w.silent != nil:
		w.silent = nil
		if err := w.tell(eventBack, "the portmapper answers again", nil); err != nil {
			return err
		}
	}
	return w.compare(list)
}

func (w *watcher) ask(ctx context.Context) ([]rpcbind.RPCB, error) {
	if w.client == nil {
		c, err := w.a.dialListed(ctx)
		if err != nil {
			return nil, err
		}
		w.client = c
	}
	list, failed := w.client.dump(ctx)
	if failed != nil && w.begun {
		// It may be no more than a connection that was idle for too long.
		w.close()
		c, err := w.a.dialListed(ctx)
		if err != nil {
			return nil, err
		}
		w.client = c
		list, failed = c.dump(ctx)
	}
	if failed != nil {
		w.close()
		return nil, notCalled("rpcinfo: can't contact rpcbind: ", failed)
	}
	return list, nil
}

// compare tells what has changed.
func (w *watcher) compare(list []rpcbind.RPCB) error {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, compareRPCB)
	sorted = slices.Compact(sorted)
	if !w.begun {
		w.begun, w.known = true, sorted
		return w.tellListed(list)
	}
	for _, r := range w.known {
		if _, still := slices.BinarySearchFunc(sorted, r, compareRPCB); !still {
			if err := w.tell(eventUnregistered, "", &r); err != nil {
				return err
			}
		}
	}
	for _, r := range list {
		if _, before := slices.BinarySearchFunc(w.known, r, compareRPCB); !before {
			if err := w.tell(eventRegistered, "", &r); err != nil {
				return err
			}
		}
	}
	w.known = sorted
	return nil
}

func compareRPCB(x, y rpcbind.RPCB) int {
	return cmp.Or(cmp.Compare(x.Program, y.Program), cmp.Compare(x.Version, y.Version), cmp.Compare(x.Netid, y.Netid),
		cmp.Compare(x.Addr, y.Addr), cmp.Compare(x.Owner, y.Owner))
}

// tellListed tells what there was at the begin.
func (w *watcher) tellListed(list []rpcbind.RPCB) error {
	if !w.a.opt.json {
		var b strings.Builder
		b.WriteString(watchIndent + listHead)
		for _, r := range list {
			b.WriteString(watchIndent + listLine(r, w.a.names))
		}
		return w.a.print(b.String())
	}
	for _, r := range list {
		if err := w.tell(eventListed, "", &r); err != nil {
			return err
		}
	}
	return nil
}

// tell prints an event: one with a registration, or one with a text.
func (w *watcher) tell(event, text string, r *rpcbind.RPCB) error {
	now := time.Now()
	if w.a.opt.json {
		e := jsonEvent{Time: now.Format(time.RFC3339Nano), Event: event, Host: w.a.host, Error: text}
		if event == eventBack {
			e.Error = ""
		}
		if r != nil {
			e.Registration = new(jsonRegistration)
			*e.Registration = registrationJSON(*r, w.a.names)
		}
		return w.a.printJSON(e)
	}
	sign := map[string]string{eventRegistered: "+", eventUnregistered: "-", eventSilent: "!", eventBack: "!"}[event]
	if r != nil {
		return w.a.printf("%s %s %s", now.Format(time.TimeOnly), sign, listLine(*r, w.a.names))
	}
	return w.a.printf("%s %s %s\n", now.Format(time.TimeOnly), sign, printable(text))
}

type jsonEvent struct {
	Time         string            `json:"time"`
	Event        string            `json:"event"`
	Host         string            `json:"host,omitempty"`
	Registration *jsonRegistration `json:"registration,omitempty"`
	Error        string            `json:"error,omitempty"`
}
