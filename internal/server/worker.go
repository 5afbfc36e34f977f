package server

import (
	"sync"

	"github.com/gportmap/gportmap/internal/portmap"
	"github.com/gportmap/gportmap/internal/sys"
)

// workerQueue is how many calls by datagram wait at most that may have to wait for something else than the processor. Those of
// other hosts have a queue of their own, so that they can't fill that of this one.
const workerQueue = 256

// A worker answers such calls in the place of the readers of datagrams, one at a time: a SET to a disk that hangs silences
// nobody who looks something up. What has no room in its queue is lost, as datagrams are; clients send it again.
type worker struct {
	server       *Server
	ours, others chan job
	ended        sync.WaitGroup
	lost         episode
}

// A job is a datagram that is to be answered.
type job struct {
	loop     *packetLoop
	datagram sys.Datagram // with a payload of its own
	from     portmap.Caller
}

func newWorker(s *Server) *worker {
	return &worker{server: s, ours: make(chan job, workerQueue), others: make(chan job, workerQueue)}
}

// take hands a datagram over. It never waits.
func (w *worker) take(l *packetLoop, d *sys.Datagram, from *portmap.Caller) {
	queue := w.others
	if from.Loopback {
		queue = w.ours
	}
	if len(queue) == cap(queue) { // nobody else makes it shorter: then it may only be too careful
		w.drop()
		return
	}
	j := job{l, *d, *from}
	j.datagram.Payload = append([]byte(nil), d.Payload...)
	select {
	case queue <- j:
	default:
		w.drop()
	}
}

func (w *worker) drop() {
	if w.lost.begins() {
		w.server.config.Log.Warn("more calls that register or list come by UDP than can be answered: some are lost, and sent " +
			"again by their clients; further ones within a minute are not reported")
	}
}

// start begins to answer. What was taken before stop is answered before that returns.
func (w *worker) start() { w.ended.Go(w.run) }

func (w *worker) stop() {
	close(w.ours)
	close(w.others)
	w.ended.Wait()
}

func (w *worker) run() {
	batch := sys.NewBatch(1, 1) // to write
	var reply []byte
	ours, others := w.ours, w.others
	for ours != nil || others != nil {
		var j job
		var ok bool
		select {
		case j, ok = <-ours:
			if !ok {
				ours = nil
			}
		default:
			select {
			case j, ok = <-ours:
				if !ok {
					ours = nil
				}
			case j, ok = <-others:
				if !ok {
					others = nil
				}
			}
		}
		if ok {
			reply = w.answer(batch, reply, &j)
		}
	}
}

// answer answers a datagram, with room for the reply that it returns for the next one.
func (w *worker) answer(batch *sys.Batch, reply []byte, j *job) []byte {
	s := w.server
	began := s.clock()
	reply = s.config.Portmapper.AppendReply(reply[:0], j.datagram.Payload, j.from)
	if len(reply) > 0 {
		j.loop.write(batch, []sys.Datagram{{
			Payload: reply, Remote: j.datagram.Remote, Local: j.datagram.Local, Ifindex: j.datagram.Ifindex,
		}})
	}
	if tell := s.config.Answered; tell != nil {
		tell(&j.from, 1, s.at(began), s.clock()-began)
	}
	if cap(reply) > outKept {
		return nil
	}
	return reply
}
