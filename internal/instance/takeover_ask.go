package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gportmap/gportmap/pkg/oncrpc"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// longestList is the size in octets of the longest list that is read of a portmapper. It is root's, and rpcbind has no bound.
const longestList = 512 << 20

// A question is a way to ask a portmapper.
type question struct{ network, address string }

// questions returns the ways to ask the portmapper that has these sockets, the best first: the local socket, TCP, UDP. The
// abstract socket is none: between the look and the call its name could become anybody's.
func questions(h Holder) []question {
	var local, tcp, udp []question
	for _, s := range h.Sockets {
		if !s.Serving {
			continue
		}
		addr := s.Addr.Addr()
		host := addr.String()
		if addr.IsUnspecified() {
			host = "127.0.0.1"
			if addr.Is6() {
				host = "::1"
			}
		}
		switch at := fmt.Sprintf("%s:%d", host, s.Addr.Port()); {
		case strings.HasPrefix(s.Path, "@"):
		case s.Netid == "local":
			local = append(local, question{"unix", s.Path})
		case strings.HasSuffix(s.Netid, "6"):
			at = fmt.Sprintf("[%s]:%d", host, s.Addr.Port())
			fallthrough
		default:
			if strings.HasPrefix(s.Netid, "tcp") {
				tcp = append(tcp, question{"tcp", at})
			} else {
				udp = append(udp, question{"udp", at})
			}
		}
	}
	return slices.Concat(local, tcp, udp)
}

// ask opens a connection for one question and lets f use it for so long.
func (q question) ask(ctx context.Context, patience time.Duration, f func(context.Context, *rpcbind.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, q.network, q.address)
	if err != nil {
		return err
	}
	c := rpcbind.NewClient(conn, oncrpc.ClientConfig{MaxReply: longestList})
	defer c.Close()
	return f(ctx, c)
}

// answers asks one after another until a portmapper answers; the error is that of the first, the best.
func answers(ctx context.Context, asks []question) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	return anyOf(asks, func(q question) error {
		return q.ask(ctx, answerPatience, func(ctx context.Context, c *rpcbind.Client) error { return c.Null(ctx, rpcbind.PMAPVers) })
	})
}

// anyOf tries one question after another until one succeeds; the error is that of the first, the best.
func anyOf(asks []question, try func(question) error) error {
	var first error
	for _, q := range asks {
		err := try(q)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	if len(asks) == 0 {
		return errors.New("it serves no socket at which it could be asked")
	}
	return first
}
