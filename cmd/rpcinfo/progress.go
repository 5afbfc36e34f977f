package main

import (
	"fmt"
	"strings"
	"sync"
)

// bar shows on a terminal how many of the hosts have been asked. Elsewhere it does nothing. (Libraries for this bring a web
// server along, or a second of start.)
type bar struct {
	world  world
	total  int
	mu     sync.Mutex
	done   int
	failed int
	shown  bool
}

const (
	barWidth  = 30
	clearLine = "\r\x1b[K"
)

func newBar(w world, total int) *bar {
	b := &bar{world: w, total: total}
	b.draw()
	return b
}

// add counts a host.
func (b *bar) add(failed bool) {
	b.mu.Lock()
	b.done++
	if failed {
		b.failed++
	}
	b.mu.Unlock()
	b.draw()
}

// draw shows the bar where the cursor is, or makes it new.
func (b *bar) draw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drawLocked()
}

func (b *bar) drawLocked() {
	if !b.world.terminal || b.done == b.total {
		return
	}
	b.shown = true
	full := barWidth * b.done / b.total
	text := fmt.Sprintf("[%s%s] %d of %d hosts", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), b.done, b.total)
	if b.failed > 0 {
		text += fmt.Sprintf(", %d failed", b.failed)
	}
	if columns := b.world.columns(); columns > 0 && len(text) >= columns {
		text = fmt.Sprintf("%d/%d", b.done, b.total)
	}
	_, _ = fmt.Fprint(b.world.stderr, clearLine+text)
}

// without takes the bar away as long as f prints something else. Hosts that are done meanwhile wait to be counted.
func (b *bar) without(f func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown {
		_, _ = fmt.Fprint(b.world.stderr, clearLine)
	}
	b.shown = false
	if err := f(); err != nil {
		return err
	}
	b.drawLocked()
	return nil
}

// end takes the bar away for good: hosts that are done later aren't shown.
func (b *bar) end() {
	_ = b.without(func() error {
		b.world.terminal = false
		return nil
	})
}
