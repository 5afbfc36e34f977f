package main

import (
	"context"
	"time"
)

// hedgePause is how long the first of two ways is tried alone.
const hedgePause = 700 * time.Millisecond

// hedged returns what the first way answers. If that fails, or takes longer than hedgePause, the second is tried as well, and
// the first answer counts. If both fail, the error is that of the first.
func hedged[T any](ctx context.Context, first, second func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func(f func(context.Context) (T, error)) <-chan result {
		c := make(chan result, 1)
		go func() {
			v, err := f(ctx)
			c <- result{v, err}
		}()
		return c
	}
	one := start(first)
	pause := time.NewTimer(hedgePause)
	defer pause.Stop()
	var failed *result
	select {
	case r := <-one:
		if r.err == nil {
			return r.value, nil
		}
		failed = &r
	case <-pause.C:
	}
	two := start(second)
	for failed == nil || two != nil {
		select {
		case r := <-one:
			if r.err == nil {
				return r.value, nil
			}
			failed, one = &r, nil
		case r := <-two:
			if r.err == nil {
				return r.value, nil
			}
			two = nil
		}
	}
	return failed.value, failed.err
}
