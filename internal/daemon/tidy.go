package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// tidyAfter is how long after it was asked for memory is given back.
const tidyAfter = time.Second

// tidy gives memory back to the kernel that isn't used any more: what only the start needed, what clients that didn't read held,
// and what a large table had. Go's runtime does that by itself, but only after minutes where nothing is allocated.
type tidy chan struct{}

// newTidy returns one that is asked already.
func newTidy() tidy {
	t := make(tidy, 1)
	t.ask()
	return t
}

// ask never waits.
func (t tidy) ask() {
	select {
	case t <- struct{}{}:
	default:
	}
}

func (t tidy) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t:
		}
		if sleep(ctx, tidyAfter); ctx.Err() == nil {
			runtime.GC() // the buffers in pools outlive one collection
			debug.FreeOSMemory()
		}
	}
}
