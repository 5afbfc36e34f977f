package rpcbind_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// What is registered on this host: the local socket needs no port and no reverse look-up.
func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := rpcbind.Dial(ctx, "unix", rpcbind.SocketPath)
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

// Where NFS version 3 listens for TCP on another host.
func ExampleClient_GetAddr() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := rpcbind.Dial(ctx, "tcp", "nfs.example")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	uaddr, err := c.GetAddr(ctx, rpcbind.RPCB{Program: 100003, Version: 3, Netid: rpcbind.TCP})
	if err != nil {
		log.Fatal(err)
	}
	if uaddr == "" {
		log.Fatal("NFS isn't registered there")
	}
	if ap, ok := rpcbind.ParseUAddr(uaddr); ok {
		fmt.Println("NFS is at", ap)
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
