package rpcbind_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A service registers where it listens, and a client finds it by its program number alone. Without the Registrar's Dial,
// as rpcbind.Register does it, this host's portmapper would be used.
func ExampleRegistrar_Register() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pm, err := portmapper.Start(ctx, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer pm.Close()

	// The server.
	const program, version, square = 0x20000001, 1, 1
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 9000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if call, err := oncrpc.ParseCall(buf[:n]); err == nil && call.Procedure == square && len(call.Args) == 4 {
				v := binary.BigEndian.Uint32(call.Args)
				reply := oncrpc.AppendAccepted(nil, call.XID, oncrpc.Success)
				conn.WriteTo(binary.BigEndian.AppendUint32(reply, v*v), from)
			}
		}
	}()
	registrar := rpcbind.Registrar{Dial: pm.Dial}
	registration, err := registrar.Register(ctx, program, version, conn)
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Close()

	// The client.
	calculator, err := rpcbind.Dial(ctx, "udp", pm.Addr(), program, version)
	if err != nil {
		log.Fatal(err)
	}
	defer calculator.Close()
	results, err := calculator.Call(ctx, square, binary.BigEndian.AppendUint32(nil, 12))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(binary.BigEndian.Uint32(results))
	// Output: 144
}

// A server on a host with a portmapper: registered as long as it runs.
func ExampleRegister() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		log.Fatal(err)
	}
	registration, err := rpcbind.Register(ctx, 100005, 3, l)
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Close()
	// Serve l here.
}

// NFS version 3 of another host, wherever it listens.
func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	nfs, err := rpcbind.Dial(ctx, "tcp", "nfs.example", 100003, 3)
	if err != nil {
		log.Fatal(err)
	}
	defer nfs.Close()
	_, err = nfs.Call(ctx, 0, nil)
	fmt.Println(nfs.RemoteAddr(), err)
}

// Where to connect with an RPC library of your own.
func ExampleLookup() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pm, err := portmapper.Start(ctx, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer pm.Close()
	if err := pm.Register(100005, 3, &net.TCPAddr{IP: net.IPv4zero, Port: 20048}); err != nil {
		log.Fatal(err)
	}
	addr, err := rpcbind.Lookup(ctx, "tcp", pm.Addr(), 100005, 3)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(addr.Network(), addr)
	// Output: tcp 127.0.0.1:20048
}

// A host's services in JSON.
func ExampleClient_Dump() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pm, err := portmapper.Start(ctx, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer pm.Close()
	if err := pm.Register(100003, 3, &net.TCPAddr{IP: net.IPv4zero, Port: 2049}); err != nil {
		log.Fatal(err)
	}

	c, err := rpcbind.DialPortmapper(ctx, "tcp", pm.Addr())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	registered, err := c.Dump(ctx)
	if err != nil {
		log.Fatal(err)
	}
	type service struct {
		Program, Version, Netid, Address, Owner any
	}
	var services []service
	for _, b := range registered {
		if b.Program != rpcbind.Program { // the portmapper itself
			services = append(services, service{b.Program, b.Version, b.Netid, b.Addr, b.Owner})
		}
	}
	json.NewEncoder(os.Stdout).Encode(services)
	// Output: [{"Program":100003,"Version":3,"Netid":"tcp","Address":"0.0.0.0.8.1","Owner":"superuser"}]
}

// Which hosts of the local networks serve NIS: those that answer procedure 0 of ypserv.
func ExampleBroadcast() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for a, err := range rpcbind.Broadcast(ctx, rpcbind.RemoteCall{Program: 100004, Version: 2}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(a.From.Addr(), a.Addr)
	}
}

// What is registered on this host, and by whom.
func ExampleDialLocal() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := rpcbind.DialLocal(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	registered, err := c.Dump(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range registered {
		fmt.Println(b.Program, b.Version, b.Netid, b.Addr, b.Owner)
	}
}

func ExampleParseUAddr() {
	fmt.Println(rpcbind.ParseUAddr("192.168.0.1.8.1"))
	fmt.Println(rpcbind.ParseUAddr("0.0.0.0.300.5"))
	// Output:
	// 192.168.0.1:2049 true
	// invalid AddrPort false
}

func ExampleUAddr() {
	fmt.Println(rpcbind.UAddr(netip.MustParseAddrPort("[fe80::1]:1001")))
	// Output: fe80::1.3.233
}

// NFS with a user's credential, from a privileged port: what most NFS servers want.
func ExampleDialer() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cred, err := oncrpc.SysCred{MachineName: "client.example", UID: 1000, GID: 1000}.Auth()
	if err != nil {
		log.Fatal(err)
	}
	d := rpcbind.Dialer{
		Client: oncrpc.ClientConfig{Cred: cred},
		Connect: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			for port := 1023; port > 512; port-- {
				from := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
				if conn, err = from.DialContext(ctx, network, address); !errors.Is(err, syscall.EADDRINUSE) {
					break
				}
			}
			return conn, err
		},
	}
	nfs, err := d.Dial(ctx, "tcp", "nfs.example", 100003, 3)
	if err != nil {
		log.Fatal(err)
	}
	defer nfs.Close()
	_, err = nfs.Call(ctx, 0, nil)
	fmt.Println(err)
}
