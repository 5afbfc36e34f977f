package sys

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Reap waits for every child that ends, until ctx ends. Process 1 has to: whoever loses his parent becomes its child. Nobody
// else in this process may wait for children meanwhile.
func Reap(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}
