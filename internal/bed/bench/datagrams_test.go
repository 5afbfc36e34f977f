package bench_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// lostAfter is how long a call may be unanswered, with nothing else arriving, before it counts as lost.
const lostAfter = time.Second

// A tally is what a generator counted.
type tally struct {
	answered, lost, wrong int
	late                  int // replies to calls that were answered, or counted as lost, before
	took                  time.Duration
	latency               histogram
}

// A window is the calls in flight of one socket: when each was sent, by the low bits of its xid.
type window struct {
	socket   *datagramSocket
	want     []byte
	sent     []time.Time
	inFlight int
	next     uint32
}

func newWindow(port, size int, e exchange) (*window, error) {
	s, err := dialDatagrams(port, size, e.call)
	if err != nil {
		return nil, err
	}
	slots := 1
	for slots < 4*size {
		slots *= 2
	}
	return &window{socket: s, want: e.reply, sent: make([]time.Time, slots), next: 1}, nil
}

// send sends n calls, which count as sent at the time now.
func (w *window) send(n int, now time.Time) error {
	for i := range n {
		setXID(w.socket.calls[i], w.next)
		w.sent[w.next%uint32(len(w.sent))] = now
		w.next++
	}
	w.inFlight += n
	return w.socket.sendCalls(n)
}

// receive takes the replies that are there into the tally and returns how many. A reply that is not the one to such a call,
// octet by octet, is wrong.
func (w *window) receive(t *tally, flags int) (int, error) {
	n, err := w.socket.receive(flags)
	if n == 0 || err != nil {
		return 0, err
	}
	now := time.Now()
	for i := range n {
		xid, ok := isReply(w.socket.reply(i), w.want)
		slot := &w.sent[xid%uint32(len(w.sent))]
		if !ok {
			t.wrong++
			continue
		}
		if slot.IsZero() || w.next-xid > uint32(len(w.sent)) {
			t.late++
			continue
		}
		t.answered++
		t.latency.add(now.Sub(*slot), 1)
		*slot = time.Time{}
		w.inFlight--
	}
	return n, nil
}

// giveUp counts what is in flight as lost.
func (w *window) giveUp(t *tally) {
	t.lost += w.inFlight
	w.inFlight = 0
	clear(w.sent)
}

// closedLoop keeps size calls in flight on each of the sockets for the time d.
func closedLoop(port, sockets, size int, e exchange, d time.Duration) (t tally, err error) {
	windows := make([]*window, sockets)
	for i := range windows {
		if windows[i], err = newWindow(port, size, e); err != nil {
			return t, err
		}
		defer windows[i].socket.close()
		if err = windows[i].socket.setTimeout(lostAfter); err != nil {
			return t, err
		}
	}
	// With one socket, waiting in the kernel is cheapest. With several, one that is never empty for long is waited for.
	begin := time.Now()
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		got := 0
		for _, w := range windows {
			if w.inFlight < size {
				if err = w.send(size-w.inFlight, time.Now()); err != nil {
					return t, err
				}
			}
			n, err := w.receive(&t, unix.MSG_DONTWAIT)
			if err != nil {
				return t, err
			}
			got += n
		}
		if got == 0 {
			w := windows[0]
			n, err := w.receive(&t, unix.MSG_WAITFORONE)
			if err != nil {
				return t, err
			}
			if n == 0 { // silence for lostAfter
				for _, w := range windows {
					w.giveUp(&t)
				}
			}
		}
	}
	t.took = time.Since(begin)
	return t, collect(windows, &t)
}

// oneAtATime is closedLoop with a window of one, without a system call too many.
func oneAtATime(port int, e exchange, d time.Duration) (t tally, err error) {
	w, err := newWindow(port, 1, e)
	if err != nil {
		return t, err
	}
	defer w.socket.close()
	if err = w.socket.setTimeout(lostAfter); err != nil {
		return t, err
	}
	begin := time.Now()
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		if err = w.send(1, now); err != nil {
			return t, err
		}
		n, err := w.receive(&t, unix.MSG_WAITFORONE)
		if err != nil {
			return t, err
		}
		if n == 0 {
			w.giveUp(&t)
		}
	}
	t.took = time.Since(begin)
	return t, nil
}

// openLoop sends rate calls a second, whether or not the earlier ones were answered, and counts latencies from the time at
// which a call was due. It doesn't sleep: on a processor of its own it is never late.
func openLoop(port, rate int, e exchange, d time.Duration) (t tally, err error) {
	w, err := newWindow(port, 1024, e)
	if err != nil {
		return t, err
	}
	defer w.socket.close()
	period := time.Second / time.Duration(rate)
	begin := time.Now()
	due := begin
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		if !now.Before(due) {
			if err = w.send(1, due); err != nil {
				return t, err
			}
			due = due.Add(period)
		}
		if _, err = w.receive(&t, unix.MSG_DONTWAIT); err != nil {
			return t, err
		}
	}
	t.took = time.Since(begin)
	return t, collect([]*window{w}, &t)
}

// burst sends n calls at once and counts what comes back.
func burst(port, n int, e exchange) (t tally, err error) {
	w, err := newWindow(port, n, e)
	if err != nil {
		return t, err
	}
	defer w.socket.close()
	begin := time.Now()
	if err = w.send(n, begin); err != nil {
		return t, err
	}
	err = collect([]*window{w}, &t)
	t.took = time.Since(begin)
	return t, err
}

// collect waits for what is still in flight, and counts as lost what doesn't come.
func collect(windows []*window, t *tally) error {
	for _, w := range windows {
		if err := w.socket.setTimeout(lostAfter); err != nil {
			return err
		}
		for w.inFlight > 0 {
			n, err := w.receive(t, unix.MSG_WAITFORONE)
			if err != nil {
				return err
			}
			if n == 0 {
				w.giveUp(t)
			}
		}
	}
	return nil
}
