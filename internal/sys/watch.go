package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A burst of notifications, as an interface coming up sends, is taken for one change: it is over after burstPause of
// silence, at the latest after burstLimit.
const (
	burstPause = 50 * time.Millisecond
	burstLimit = time.Second
)

// WatchInterfaces calls changed with the interfaces now and again whenever they or their addresses become different, in
// the calling goroutine, until ctx ends; it then returns nil. An error means that the kernel can't be asked.
func WatchInterfaces(ctx context.Context, changed func([]Interface)) error {
	if err := watchInterfaces(ctx, changed); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	return nil
}

func watchInterfaces(ctx context.Context, changed func([]Interface)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	defer f.Close()
	groups := &unix.SockaddrNetlink{
		Family: unix.AF_NETLINK,
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	}
	if err := unix.Bind(fd, groups); err != nil {
		return os.NewSyscallError("bind", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	// The socket listens already, so a change during the first listing shows as a notification.
	var last []Interface
	for first := true; ; first = false {
		list, err := Interfaces()
		if err != nil {
			return err
		}
		if first || !slices.EqualFunc(list, last, Interface.equal) {
			changed(list)
		}
		last = list
		if err := awaitBurst(ctx, f); err != nil {
			return err
		}
	}
}

// awaitBurst waits for a notification and for the end of the burst that it begins.
func awaitBurst(ctx context.Context, f *os.File) error {
	var buf [4096]byte // what the notifications say is not read: they may be lost, a new list is complete
	var limit time.Time
	for {
		var deadline time.Time
		if now := time.Now(); !limit.IsZero() {
			deadline = now.Add(burstPause)
			if deadline.After(limit) {
				deadline = limit
			}
		}
		if err := f.SetReadDeadline(deadline); err != nil {
			return err
		}
		// After the deadline is set: ctx may have ended, and its deadline in the past been replaced, just before.
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := f.Read(buf[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := ctx.Err(); err != nil {
				return err
			}
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // ENOBUFS: notifications were lost, so something changed
			return err
		}
		if limit.IsZero() {
			limit = time.Now().Add(burstLimit)
		}
	}
}

func (i Interface) equal(j Interface) bool {
	return i.Index == j.Index && i.Name == j.Name && i.Up == j.Up && i.Loopback == j.Loopback &&
		i.PointToPoint == j.PointToPoint && i.Multicast == j.Multicast && slices.Equal(i.Addrs, j.Addrs)
}
