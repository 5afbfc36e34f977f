package compare_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	rasky "github.com/rasky/go-xdr/xdr2"
	vmware "github.com/vmware/go-nfs-client/nfs/rpc"
	vmwarexdr "github.com/vmware/go-nfs-client/nfs/xdr"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/xdr"
)

// header is a call with the arguments of GETPORT, as the libraries with reflection take it.
type header struct {
	XID, Kind, RPCVersion, Program, Version, Procedure uint32
	Cred, Verf                                         vmware.Auth
	Mapping                                            [4]uint32
}

// entry is an rpcb of RFC 1833.
type entry struct {
	Program, Version   uint32
	Netid, Addr, Owner string
}

var (
	getport = header{1, 0, 2, 100000, 2, 3, vmware.Auth{}, vmware.Auth{}, [4]uint32{100003, 3, 6, 0}}
	nfs     = entry{100003, 3, "tcp6", "2001:db8::17.8.1", "superuser"}
)

func appendGetport(dst []byte) []byte {
	dst = oncrpc.AppendCall(dst, oncrpc.Call{XID: getport.XID, Program: getport.Program, Version: getport.Version, Procedure: getport.Procedure})
	for _, v := range getport.Mapping {
		dst = xdr.AppendUint32(dst, v)
	}
	return dst
}

func appendEntry(dst []byte, e entry) []byte {
	dst = xdr.AppendUint32(dst, e.Program)
	dst = xdr.AppendUint32(dst, e.Version)
	dst = xdr.AppendString(dst, e.Netid)
	dst = xdr.AppendString(dst, e.Addr)
	return xdr.AppendString(dst, e.Owner)
}

func readEntry(d *xdr.Decoder) entry {
	return entry{d.Uint32(), d.Uint32(), d.String(255), d.String(255), d.String(255)}
}

// The libraries have to agree before their speed is compared.
func TestSameOctets(t *testing.T) {
	var theirs bytes.Buffer
	if err := vmwarexdr.Write(&theirs, getport); err != nil {
		t.Fatal(err)
	}
	if ours := appendGetport(nil); !bytes.Equal(ours, theirs.Bytes()) {
		t.Errorf("call\n% x, go-nfs-client\n% x", ours, theirs.Bytes())
	}
	theirs.Reset()
	if _, err := rasky.Marshal(&theirs, nfs); err != nil {
		t.Fatal(err)
	}
	if ours := appendEntry(nil, nfs); !bytes.Equal(ours, theirs.Bytes()) {
		t.Errorf("entry\n% x, go-xdr\n% x", ours, theirs.Bytes())
	}
	d := xdr.NewDecoder(theirs.Bytes())
	if got := readEntry(&d); got != nfs || d.Err() != nil {
		t.Errorf("%+v, %v", got, d.Err())
	}
}

func BenchmarkEncodeCall(b *testing.B) {
	b.Run("lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 128)
		for b.Loop() {
			appendGetport(buf)
		}
	})
	b.Run("lib=go-nfs-client", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if err := vmwarexdr.Write(&buf, &getport); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lib=go-xdr", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if _, err := rasky.Marshal(&buf, &getport); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeCall(b *testing.B) {
	message := appendGetport(nil)
	b.Run("lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := oncrpc.ParseCall(message)
			d := xdr.NewDecoder(c.Args)
			for range 4 {
				d.Uint32()
			}
			if err != nil || d.Err() != nil {
				b.Fatal(err, d.Err())
			}
		}
	})
	b.Run("lib=go-nfs-client", func(b *testing.B) {
		b.ReportAllocs()
		r := bytes.NewReader(nil)
		var h header
		for b.Loop() {
			r.Reset(message)
			if err := vmwarexdr.Read(r, &h); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lib=go-xdr", func(b *testing.B) {
		b.ReportAllocs()
		r := bytes.NewReader(nil)
		var h header
		for b.Loop() {
			r.Reset(message)
			if _, err := rasky.Unmarshal(r, &h); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncodeEntry(b *testing.B) {
	b.Run("lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 128)
		for b.Loop() {
			appendEntry(buf, nfs)
		}
	})
	b.Run("lib=go-nfs-client", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if err := vmwarexdr.Write(&buf, &nfs); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lib=go-xdr", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if _, err := rasky.Marshal(&buf, &nfs); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// All make strings of their own.
func BenchmarkDecodeEntry(b *testing.B) {
	message := appendEntry(nil, nfs)
	b.Run("lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := xdr.NewDecoder(message)
			if got := readEntry(&d); got.Program != nfs.Program || d.Err() != nil {
				b.Fatal(got, d.Err())
			}
		}
	})
	b.Run("lib=go-nfs-client", func(b *testing.B) {
		b.ReportAllocs()
		r := bytes.NewReader(nil)
		for b.Loop() {
			r.Reset(message)
			var got entry
			if err := vmwarexdr.Read(r, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lib=go-xdr", func(b *testing.B) {
		b.ReportAllocs()
		r := bytes.NewReader(nil)
		for b.Loop() {
			r.Reset(message)
			var got entry
			if _, err := rasky.Unmarshal(r, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// serve answers GETPORT on loopback TCP.
func serve(b *testing.B) string {
	b.Helper()
	var s oncrpc.Server
	err := s.Register(100000, 2, oncrpc.Procedures{3: func(_ context.Context, r *oncrpc.Request, results []byte) ([]byte, error) {
		d := r.Decoder()
		d.Fixed(16)
		if d.Err() != nil {
			return nil, oncrpc.ErrGarbageArgs
		}
		return xdr.AppendUint32(results, 2049), nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		s.Close()
		<-served
	})
	return l.Addr().String()
}

// Calls over loopback TCP, to the same server: one after another, and from 64 goroutines over one connection, which
// go-nfs-client's calls can't share.
func BenchmarkCall(b *testing.B) {
	address := serve(b)
	args := appendGetport(nil)[oncrpc.CallHeaderSize:]
	ours := func(b *testing.B) *oncrpc.Client {
		c, err := oncrpc.Dial(b.Context(), "tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		return c
	}
	once := func(b *testing.B, ctx context.Context, c *oncrpc.Client) {
		results, err := c.Call(ctx, oncrpc.Call{Program: 100000, Version: 2, Procedure: 3, Args: args})
		d := xdr.NewDecoder(results)
		if port := d.Uint32(); err != nil || port != 2049 {
			b.Error(port, err)
		}
	}
	b.Run("inflight=1/lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		c := ours(b)
		for b.Loop() {
			once(b, context.Background(), c)
		}
	})
	b.Run("inflight=1/lib=go-nfs-client", func(b *testing.B) {
		b.ReportAllocs()
		c, err := vmware.DialTCP("tcp", nil, address)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		type call struct {
			vmware.Header
			Mapping [4]uint32
		}
		for b.Loop() {
			res, err := c.Call(&call{vmware.Header{Rpcvers: 2, Prog: 100000, Vers: 2, Proc: 3}, getport.Mapping})
			if err != nil {
				b.Fatal(err)
			}
			if port, err := vmwarexdr.ReadUint32(res); err != nil || port != 2049 {
				b.Fatal(port, err)
			}
		}
	})
	b.Run("inflight=64/lib=gportmap", func(b *testing.B) {
		b.ReportAllocs()
		c := ours(b)
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				once(b, context.Background(), c)
			}
		})
	})
}
