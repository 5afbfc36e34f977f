package portmap

import (
	"bytes"
	"sync"
	"testing"
)

// TestConcurrentCalls calls everything from several goroutines at once, while registrations and interfaces change.
// The race detector is the judge; the replies that don't depend on the others are compared too.
func TestConcurrentCalls(t *testing.T) {
	p := newSubject(t, registered...)
	const calls = 300
	var callers sync.WaitGroup
	for _, transport := range transports {
		for _, from := range []Caller{localCaller(transport), remoteCaller(transport)} {
			if from.Transport == Local {
				from = localCaller(Local)
			}
			callers.Go(func() {
				for i := range uint32(calls) {
					for _, proc := range procedures {
						if !proc.change {
							checkReply(t, from, callTo(proc.vers, proc.proc, proc.args), ask(p, from, callTo(proc.vers, proc.proc, proc.args)))
						}
					}
					wantReply(t, p, from, callTo(2, 3, words(300001, 1, 6, 0)), success(words(2049)))
					ask(p, from, callTo(3, 3, rpcbOf(500000+i%100, i, "", "", "")))
					for _, call := range [][]byte{callTo(4, 12), callTo(4, 4), callTo(2, 4), callTo(4, 10, words(500000+i%100, 99, 0, 0))} {
						checkReply(t, from, call, ask(p, from, call))
					}
				}
			})
		}
	}
	for i := range uint32(calls) {
		for vers := range uint32(4) {
			wantReply(t, p, localCaller(Local), callTo(2, 1, words(500000+i%100, vers, 17, 1+i)), yes)
		}
		for vers := range uint32(4) {
			wantReply(t, p, localCaller(Local), callTo(2, 2, words(500000+i%100, vers, 17, 0)), yes)
		}
		p.SetInterfaces(testHost())
	}
	callers.Wait()
	if got := dumped(t, p); bytes.Count(got, []byte("superuser")) != len(registered) {
		t.Errorf("the table is then %q", got)
	}
}
