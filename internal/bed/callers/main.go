// Command callers is the clients of a host that don't stop asking: it calls the portmapper over every transport, one call
// after the other, until it gets SIGTERM, and tells how each of them fared. The checks of .ci/bed run it while they replace,
// restart and kill the daemon.
//
//	callers [-v6=false] [-broken N] [-broken-local N] [-again N] [-by-tcp] PROGRAM VERSION
//
// It asks GETPORT for a program that must be registered, and wants the same port in every answer. A line for each client
// goes to standard output at the end. The exit code is 1 if a call was refused, lost or answered otherwise, or if a
// client had more trouble than the flags allow; without flags a call over UDP may be sent once again.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	v6 := flag.Bool("v6", true, "call over IPv6 as well")
	var allowed trouble
	flag.IntVar(&allowed.broken, "broken", 0, "how often connections of a client may break")
	flag.IntVar(&allowed.brokenLocal, "broken-local", 0, "how often the local connection that is kept may break")
	flag.IntVar(&allowed.again, "again", 1, "how often a call over UDP may be sent again")
	flag.BoolVar(&allowed.byTCP, "by-tcp", false, "the local socket may refuse for a while: then calls go over TCP")
	flag.Parse()
	program, errProgram := strconv.ParseUint(flag.Arg(0), 10, 32)
	version, errVersion := strconv.ParseUint(flag.Arg(1), 10, 32)
	if flag.NArg() != 2 || errProgram != nil || errVersion != nil {
		fmt.Fprintln(os.Stderr, "usage: callers [-v6=false] [-broken N] [-broken-local N] [-again N] [-by-tcp] PROGRAM VERSION")
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	code := 0
	for _, c := range callUntilDone(ctx, clients(*v6), uint32(program), uint32(version)) {
		fmt.Println(c)
		if !c.served(allowed) {
			code = 1
		}
	}
	os.Exit(code)
}

// callUntilDone lets all clients call until ctx ends and returns them with what they met.
func callUntilDone(ctx context.Context, all []*client, program, version uint32) []*client {
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { c.callUntilDone(ctx, program, version) })
	}
	wg.Wait()
	return all
}
