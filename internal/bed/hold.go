package bed

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Hold binds a socket as a server has one, so that what is registered with its port counts as alive, and holds it until the
// end of the test or until release is called, after which nobody is bound there. Network is "udp4", "udp6", "tcp4" or
// "tcp6", or "tcp" or "udp" for both families at once; address is as in ":2049" or "[::1]:2049". TCP sockets listen. What
// is sent there is neither read nor answered.
func (ns *NS) Hold(t *testing.T, network, address string) (release func()) {
	t.Helper()
	release, err := hold(t.Context(), network, address)
	if err != nil {
		t.Fatalf("bed: hold %s %s: %v", network, address, err)
	}
	t.Cleanup(release)
	return release
}

func hold(ctx context.Context, network, address string) (release func(), err error) {
	var config net.ListenConfig
	var closeSocket func() error
	switch {
	case strings.HasPrefix(network, "tcp"):
		l, err := config.Listen(ctx, network, address)
		if err != nil {
			return nil, err
		}
		closeSocket = l.Close
	case strings.HasPrefix(network, "udp"):
		c, err := config.ListenPacket(ctx, network, address)
		if err != nil {
			return nil, err
		}
		closeSocket = c.Close
	default:
		return nil, fmt.Errorf("the network must be one of TCP or UDP")
	}
	return sync.OnceFunc(func() { closeSocket() }), nil
}

// ForgetRegistrations removes what the daemons that ran here have saved, so that the next one starts with an empty table.
// No daemon may be running.
func (ns *NS) ForgetRegistrations(t *testing.T) {
	t.Helper()
	saved, err := filepath.Glob("/run/rpcbind/*.xdr")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range saved {
		if err := os.Remove(path); err != nil {
			t.Fatalf("bed: forget the registrations: %v", err)
		}
	}
}
