// Package bed is the test bed of gportmap: it runs the daemon and Linux's own
// rpcbind, the oracle, in fresh Linux namespaces and speaks to them on the
// wire. Only tests import it.
//
// A test file that uses it hands its TestMain over:
//
//	func TestMain(m *testing.M) { bed.Main(m) }
//
// and runs what needs a network of its own in a namespace:
//
//	func TestNull(t *testing.T) {
//		for _, s := range bed.Subjects(t) {
//			t.Run(s.String(), func(t *testing.T) {
//				bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
//					ns.Start(t, s)                       // rpcbind -f -w, or gportmap -f
//					reply, err := ns.Call(t, bed.UDP, bed.From{}, call)
//					…
//				})
//			})
//		}
//	}
//
// # Namespaces
//
// InNamespace starts the test binary again, as root, with the flags
// -test.run=^name of this test$ -test.v, in network, mount, process, IPC and
// UTS namespaces of its own. Everything in the test function before
// InNamespace therefore runs twice: once outside, once inside. In the child the
// test binary is process 1; when it ends the kernel kills whatever the test
// left behind, so a daemon that forks into the background cannot survive. A
// test, or a subtest, calls InNamespace at most once. The child's output is
// logged by the parent, each line behind "| "; a failure or a skip in the child
// is one in the parent.
//
// Inside: loopback is up; /run is a tmpfs with /run/rpcbind and /run/lock in it
// (so /var/run, /var/lock and /run/rpcbind.sock are the test's own); /proc shows
// the new process namespace; /etc/hosts knows that localhost is 127.0.0.1, and
// no more; nothing else of the machine is reachable by network. All other files
// are the machine's own: write only to /run and t.TempDir().
//
// Collect does the same for a test that compares what it learnt in several
// namespaces: it returns the function's result in the parent.
//
// With Options.Remote there is a second network namespace, the "remote host",
// behind a veth pair. Our end is called veth0 and theirs veth1; see HostIPv4,
// PeerIPv4 and their neighbours for the addresses. Code runs there by
// NS.Remote, commands by NS.RemoteCommand, calls by From.Remote.
//
// # Subjects
//
// Subjects lists what to test: gportmap always, rpcbind where it is installed
// (otherwise one log line says which package to install). NS.Start runs a
// subject in the foreground, waits until it answers a NULL call on
// /run/rpcbind.sock and kills it at the end of the test. gportmap is built once
// per test process by Main, from cmd/gportmap, with the race detector when the
// test binary has it. Registrations outlive a daemon: the next one in the same
// namespaces has them again unless NS.ForgetRegistrations removed them.
//
// gportmap asks the kernel whether the server of a registration that stands in
// the way is still there. A test in which registrations are no more than calls
// holds the servers' ports by NS.Hold.
//
// # Calls
//
// NS.Call sends one call message and returns the reply message, or ErrSilence,
// or ErrClosed. From says who calls: another uid, source address and port, the
// remote host. Dial gives a Conn for anything finer: record fragments, segments,
// half-closes, pipelined calls.
//
// # Faults
//
// Package faults, below this one, walks the daemon through its system calls and
// lets each fail, or a signal come there. See its documentation.
//
// # This package's own tests
//
// They compare gportmap with the oracle and with the recording in testdata/wire.
// A reply may differ from rpcbind's only where the test names the row of the
// contract's table of deliberate differences and gives our reply; a named
// difference that is none fails as well. TestOracleRandom and TestOracleMutated
// print their seed; -bed.seed=N repeats a sequence and -bed.steps=N gives its
// length:
//
//	go test ./internal/bed -run 'Random|Mutated' -args -bed.seed=7 -bed.steps=50000
package bed
