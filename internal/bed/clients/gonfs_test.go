package clients_test

import (
	"fmt"
	"testing"

	"github.com/vmware/go-nfs-client/nfs/rpc"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestGoNFSClient asks for ports with the portmapper client of
// github.com/vmware/go-nfs-client, over one TCP connection.
func TestGoNFSClient(t *testing.T) {
	requires(t)
	buildTirpc(t)
	each(t, bed.Options{}, func(t *testing.T, ns *bed.NS, s bed.Subject, record *transcript) {
		ns.Start(t, s)
		serve(t, 0, "serve 536870913 1,3 udp=0.0.0.0.78.133 tcp=0.0.0.0.78.134")
		serve(t, owner, "serve 100005 3 tcp=0.0.0.0.78.140")
		portmapper, err := rpc.DialPortmapper("tcp", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		defer portmapper.Close()
		portmapper.SetTimeout(patience)
		for _, c := range []struct {
			mapping rpc.Mapping
			want    int
		}{
			{rpc.Mapping{Prog: 536870913, Vers: 1, Prot: rpc.IPProtoTCP}, 20102},
			{rpc.Mapping{Prog: 536870913, Vers: 3, Prot: rpc.IPProtoUDP}, 20101},
			{rpc.Mapping{Prog: 100005, Vers: 3, Prot: rpc.IPProtoTCP}, 20108},
			{rpc.Mapping{Prog: 100005, Vers: 3, Prot: rpc.IPProtoUDP}, 0},
			{rpc.Mapping{Prog: 100003, Vers: 3, Prot: rpc.IPProtoTCP}, 0},
			{rpc.Mapping{Prog: 100000, Vers: 2, Prot: rpc.IPProtoTCP}, 111},
		} {
			port, err := getport(portmapper, c.mapping)
			if err != nil || port != c.want {
				t.Errorf("Getport %+v: %d, %v; want %d", c.mapping, port, err, c.want)
			}
			record.add(fmt.Sprintf("Getport %+v", c.mapping), fmt.Sprint(port, err))
		}
	})
}

// getport is Getport with its panics, which the library has for replies it does
// not expect, turned into errors.
func getport(p *rpc.Portmapper, mapping rpc.Mapping) (port int, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("go-nfs-client panics: %v", reason)
		}
	}()
	return p.Getport(mapping)
}
