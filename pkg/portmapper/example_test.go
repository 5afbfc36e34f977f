package portmapper_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/gportmap/gportmap/pkg/portmapper"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A service registers and is looked up, without a portmapper on the host and without privileges.
func ExampleStart() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pm, err := portmapper.Start(ctx, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer pm.Close()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	registrar := rpcbind.Registrar{Dial: pm.Dial}
	registration, err := registrar.Register(ctx, 100003, 3, l)
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Close()

	found, err := rpcbind.Lookup(ctx, "tcp", pm.Addr(), 100003, 3)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.String() == l.Addr().String())
	// Output: true
}

// A server with a portmapper of its own, for a host that has none.
func ExamplePortmapper_Register() {
	nfs, err := net.Listen("tcp", ":2049")
	if err != nil {
		log.Fatal(err)
	}
	pm := portmapper.New(portmapper.Options{})
	for _, program := range []uint32{100003, 100005} { // NFS and MOUNT at the same port
		if err := pm.Register(program, 3, nfs); err != nil {
			log.Fatal(err)
		}
	}
	if err := pm.Start(context.Background(), ":111"); err != nil {
		log.Fatal(err)
	}
	defer pm.Close()
	// Serve nfs here.
}
