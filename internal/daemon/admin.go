package daemon

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/gportmap/gportmap/internal/admin"
	"github.com/gportmap/gportmap/internal/sys"
)

// adminMode is the mode of the admin socket: root, or the user that we run as, and a group.
const adminMode = 0o660

// adminSocket returns the path of the admin socket.
// It is "" for none.
func (c Config) adminSocket() string {
	if c.stateless() {
		return ""
	}
	return filepath.Join(c.stateDir(), admin.SocketName)
}

// An adminDesk is where the daemon can be asked how it is: the admin socket and, if that is configured, a TCP socket for
// metrics. Nothing that serves programs depends on it: what can't be opened is logged and served without.
type adminDesk struct {
	config  Config
	gid     int // that may ask, besides root; -1 for none
	local   net.Listener
	metrics net.Listener
	server  *admin.Server
	served  sync.WaitGroup

	mu    sync.Mutex
	ended bool
}

// openAdmin opens it, while we may still be root. The error is about the configuration alone.
func openAdmin(c Config) (*adminDesk, error) {
	d := &adminDesk{config: c, gid: -1}
	if c.AdminGroup != "" {
		id, err := sys.LookupGroup(c.AdminGroup)
		if err != nil {
			return nil, WithExitCode(ExitConfig, fmt.Errorf("admin socket: %w", err))
		}
		d.gid = int(id)
	}
	var err error
	if c.stateless() {
		// status and watch ask by the portmapper's own calls
	} else if d.local, err = d.listen(); err != nil {
		c.Log.Warn("the admin socket can't be made: status and watch will know less", "err", err)
	}
	if c.Metrics != (netip.AddrPort{}) {
		if d.metrics, err = net.Listen("tcp", c.Metrics.String()); err != nil {
			c.Log.Error("metrics aren't served over TCP; free the address or configure another", "address", c.Metrics.String(), "err", err)
		}
	}
	return d, nil
}

// listen makes the admin socket, for root and its group.
func (d *adminDesk) listen() (net.Listener, error) {
	path := d.config.adminSocket()
	l, err := listenAdmin(path)
	if err != nil || d.gid < 0 {
		return l, err
	}
	// Who isn't root may give it to groups of its own alone.
	if err := sys.GiveSocket(path, adminMode, d.gid); err != nil {
		d.config.Log.Warn("the admin socket can't be given to its group, so root alone may ask; under systemd the unit needs SupplementaryGroups= and SystemCallFilter=@chown",
			"group", d.config.AdminGroup, "err", err)
	}
	return l, nil
}

// renew makes the admin socket anew, whose file was removed.
func (d *adminDesk) renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return net.ErrClosed
	}
	l, err := d.listen()
	if err != nil {
		return err
	}
	if old, ok := d.local.(*net.UnixListener); ok {
		old.SetUnlinkOnClose(false) // the path is the new one's
		_ = old.Close()             // its Serve ends
	}
	d.local = l
	d.answer(l)
	return nil
}

// listenAdmin makes the socket at path in the place of one that a daemon left which was killed; we hold the instance lock.
// Until it has its mode only its owner can connect.
func listenAdmin(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: %d octets are too long for a local socket, at most %d; choose a shorter --state-dir", path, len(path), maxSocketPath)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := sys.GiveSocket(path, adminMode, -1); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve tells about s until the function that it returns is called.
func (d *adminDesk) serve(s admin.Source) (end func()) {
	d.server = admin.NewServer(s)
	for _, l := range []net.Listener{d.local, d.metrics} {
		if l != nil {
			d.answer(l)
		}
	}
	return func() {
		d.mu.Lock()
		d.ended = true
		d.mu.Unlock()
		d.server.Close()
		d.served.Wait()
	}
}

func (d *adminDesk) answer(l net.Listener) {
	metricsOnly := l == d.metrics
	d.served.Go(func() {
		if err := d.server.Serve(l, metricsOnly); err != nil {
			d.config.Log.Warn("who asks how we are gets no answer any more", "address", l.Addr().String(), "err", err)
		}
	})
}

// close closes what was opened, if serve didn't.
func (d *adminDesk) close() {
	for _, l := range []net.Listener{d.local, d.metrics} {
		if l != nil {
			_ = l.Close() // serve has closed it, or nobody was served
		}
	}
}
