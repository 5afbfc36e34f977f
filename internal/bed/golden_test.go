package bed_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gportmap/gportmap/internal/bed"
	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

const wireDir = "../../testdata/wire/"

// exchange is a line of the recording; see testdata/wire/README.md.
type exchange struct {
	Name       string        `json:"name"`
	Transport  bed.Transport `json:"transport"`
	SourcePort *uint16       `json:"source_port"`
	Call       hexBytes      `json:"call"`
	Reply      *hexBytes     `json:"reply"`
	Compare    bool          `json:"compare"`
}

// difference is a line of the list of deliberate differences.
type difference struct {
	Index int       `json:"index"`
	Name  string    `json:"name"`
	Row   int       `json:"row"`
	Reply *hexBytes `json:"reply"`
	Why   string    `json:"why"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

func readLines[T any](t *testing.T, name string) []T {
	t.Helper()
	f, err := os.Open(wireDir + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%s line %d: %v", name, len(all)+1, err)
		}
		all = append(all, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return all
}

// replay sends the call and returns the reply, nil for silence.
func (e exchange) replay(t *testing.T, ns *bed.NS) []byte {
	t.Helper()
	var from bed.From
	if e.SourcePort != nil {
		from.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		from.Port = *e.SourcePort
	}
	reply, err := ns.Call(t, e.Transport, from, e.Call)
	if err != nil && !errors.Is(err, bed.ErrSilence) && !errors.Is(err, bed.ErrClosed) {
		t.Fatalf("%s over %s: %v", e.Name, e.Transport, err)
	}
	return reply
}

// recorded returns what a recorded reply says, nil for silence.
func recorded(reply *hexBytes) []byte {
	if reply == nil {
		return nil
	}
	return *reply
}

// show prints a reply for a person, nil as silence.
func show(reply []byte) string {
	if reply == nil {
		return "silence"
	}
	return fmt.Sprintf("%x", reply)
}

// TestGolden replays the recording of rpcbind 1.2.6 against gportmap.
func TestGolden(t *testing.T) { replayGolden(t, func(*testing.T, *bed.NS) {}) }

// TestGoldenUnderLoad does so while others call as fast as they are answered, over each transport.
func TestGoldenUnderLoad(t *testing.T) {
	replayGolden(t, func(t *testing.T, _ *bed.NS) {
		var answered atomic.Uint64
		var work sync.WaitGroup
		var conns []net.Conn
		for network, address := range map[string]string{"udp": "127.0.0.1:111", "tcp": "127.0.0.1:111", "unix": rpcbind.SocketPath} {
			for range 16 {
				conn, err := net.Dial(network, address)
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
				work.Go(func() { callOn(conn, network != "udp", &answered) })
			}
		}
		t.Cleanup(func() {
			for _, c := range conns {
				c.Close()
			}
			work.Wait()
			t.Logf("meanwhile %d other calls were answered", answered.Load())
			if answered.Load() < 1000 {
				t.Error("that is no load")
			}
		})
	})
}

// callOn calls again and again until the connection is closed: another program than the portmapper's, which no statistics
// count. What UDP loses is sent again.
func callOn(conn net.Conn, stream bool, answered *atomic.Uint64) {
	call := oncrpc.AppendCall(nil, oncrpc.Call{XID: 7, Program: 100003, Version: 3})
	reply := make([]byte, 24)
	if stream {
		call = append(oncrpc.BeginRecord(nil), call...)
		oncrpc.EndRecord(call, 0)
		reply = make([]byte, oncrpc.RecordMarkSize+24)
	}
	for {
		if _, err := conn.Write(call); err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		switch _, err := io.ReadFull(conn, reply); {
		case err == nil:
			answered.Add(1)
		case stream || !errors.Is(err, os.ErrDeadlineExceeded):
			return
		}
	}
}

// replayGolden compares the replies with those recorded. load is called when the subject serves.
func replayGolden(t *testing.T, load func(t *testing.T, ns *bed.NS)) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		exchanges := readLines[exchange](t, "rpcbind-1.2.6.jsonl")
		differences := map[int]difference{}
		for _, d := range readLines[difference](t, "differences.jsonl") {
			if d.Index < 0 || d.Index >= len(exchanges) || exchanges[d.Index].Name != d.Name {
				t.Fatalf("differences.jsonl: no exchange %d named %q in the recording", d.Index, d.Name)
			}
			if _, twice := differences[d.Index]; twice {
				t.Fatalf("differences.jsonl: index %d is listed twice", d.Index)
			}
			differences[d.Index] = d
		}
		ns.Start(t, bed.Gportmap)
		// The server of the one registration in the recording that another SET wants to replace is alive.
		ns.Hold(t, "tcp4", ":2049")
		load(t, ns)
		compared := 0
		for i, e := range exchanges {
			reply := e.replay(t, ns)
			d, listed := differences[i]
			switch {
			case listed:
				if bytes.Equal(recorded(d.Reply), recorded(e.Reply)) {
					t.Errorf("differences.jsonl: index %d %q lists rpcbind's own reply", i, e.Name)
				}
				if want := recorded(d.Reply); !bytes.Equal(reply, want) {
					t.Errorf("%d %q over %s (row %d, %s)\n call    %x\n rpcbind %s\n ours    %s\n want    %s",
						i, e.Name, e.Transport, d.Row, d.Why, e.Call, show(recorded(e.Reply)), show(reply), show(want))
				}
			case e.Compare:
				if want := recorded(e.Reply); !bytes.Equal(reply, want) {
					t.Errorf("%d %q over %s\n call    %x\n rpcbind %s\n ours    %s",
						i, e.Name, e.Transport, e.Call, show(want), show(reply))
				}
			default:
				continue
			}
			compared++
		}
		t.Logf("%d of %d replies compared, %d deliberate differences", compared, len(exchanges), len(differences))
	})
}

// TestGoldenOracle replays the recording against the rpcbind that is installed:
// a harness that does not repeat the recording can't judge gportmap by it.
func TestGoldenOracle(t *testing.T) {
	bed.NeedRpcbind(t)
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, ns *bed.NS) {
		ns.Start(t, bed.Rpcbind)
		for i, e := range readLines[exchange](t, "rpcbind-1.2.6.jsonl") {
			reply := e.replay(t, ns)
			if want := recorded(e.Reply); e.Compare && !bytes.Equal(reply, want) {
				t.Errorf("%d %q over %s\n call     %x\n recorded %s\n now      %s",
					i, e.Name, e.Transport, e.Call, show(want), show(reply))
			}
		}
	})
}
