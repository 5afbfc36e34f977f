package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxHostsFile is the size in octets of the largest file of hosts.
const maxHostsFile = 16 << 20

const (
	// atOnce is the number of hosts that are asked at a time.
	atOnce = 64
	// ahead is the number of hosts whose answers may wait for those of a host before them to be printed.
	ahead = 256
	// maxReplyOfMany is the size in octets of the largest reply of each of several hosts: 13,000 registrations.
	maxReplyOfMany = 1 << 20
)

// readHosts reads a file with a host on each line; # begins a comment, and the file - is standard input.
func readHosts(path string, stdin io.Reader) ([]string, error) {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("rpcinfo: --hosts: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxHostsFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("rpcinfo: --hosts %s: %w", path, err)
	case len(text) > maxHostsFile:
		return nil, fmt.Errorf("rpcinfo: --hosts %s: more than %d octets", path, maxHostsFile)
	}
	var hosts []string
	for line := range strings.Lines(string(text)) {
		host, _, _ := strings.Cut(line, "#")
		if host = strings.TrimSpace(host); host != "" {
			hosts = append(hosts, host)
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("rpcinfo: --hosts %s: there is no host in it; write one on each line", path)
	}
	return hosts, nil
}

// hostReport is what there is to print of a host.
type hostReport struct {
	host           string
	stdout, stderr bytes.Buffer
	failed         bool
}

// askAll asks several hosts at the same time and prints what they say, in the order in which they were given.
func (a *asker) askAll(ctx context.Context, hosts []string) error {
	if len(a.opt.args) > 0 {
		// That these are wrong is told once, not for every host.
		if _, _, err := a.programVersion(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bar := newBar(a.world, len(hosts))
	defer bar.end()
	var result error
	first := true
	for r := range a.askEach(ctx, hosts, bar) {
		r := <-r
		if r.failed {
			result = errFailed
		}
		if err := bar.without(func() error { return a.printReport(r, first) }); err != nil {
			return err
		}
		first = first && r.stdout.Len() == 0
	}
	return result
}

// askEach asks each host and returns where their reports come, in the order of the hosts.
func (a *asker) askEach(ctx context.Context, hosts []string, bar *bar) <-chan chan *hostReport {
	reports := make(chan chan *hostReport, ahead)
	places := make(chan struct{}, atOnce)
	go func() {
		defer close(reports)
		for _, host := range hosts {
			report := make(chan *hostReport, 1)
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case reports <- report:
			case <-ctx.Done():
				return
			}
			go func() {
				r := a.askHost(ctx, host)
				bar.add(r.failed)
				report <- r
				<-places
			}()
		}
	}()
	return reports
}

func (a *asker) askHost(ctx context.Context, host string) *hostReport {
	r := &hostReport{host: host}
	one := *a
	one.host, one.out, one.errs, one.maxReply = host, &r.stdout, &r.stderr, maxReplyOfMany
	err := one.run(ctx)
	if err != nil && !errors.Is(err, errFailed) {
		fmt.Fprintln(&r.stderr, printable(explain(err)))
	}
	r.failed = err != nil
	return r
}

// printReport prints what a host said below its name, and each line about what went wrong behind it.
func (a *asker) printReport(r *hostReport, first bool) error {
	name := printable(r.host)
	for line := range strings.Lines(r.stderr.String()) {
		fmt.Fprintf(a.errs, "%s: %s", name, strings.TrimPrefix(line, name+": "))
	}
	switch {
	case a.opt.json || r.stdout.Len() == 0:
		return a.print(r.stdout.String())
	case first:
		return a.print(name + ":\n" + r.stdout.String())
	}
	return a.print("\n" + name + ":\n" + r.stdout.String())
}
