package sys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

// ErrNoGoBuild says that a file isn't a program that a Go of version 1.18 or later has built.
var ErrNoGoBuild = errors.New("no Go program, or one of before Go 1.18")

const (
	// buildMagic begins what the linker writes about the build into the program, at a multiple of buildAlign octets.
	buildMagic = "\xff Go buildinf:"
	buildAlign = 16
	// buildHeader is the octets before the two strings: the magic, the size of a pointer, flags, and room.
	buildHeader = 32
	// buildInline is the flag that says that the strings follow, each behind its length.
	buildInline = 2
	// buildGuard is the octets before and behind the text about modules.
	buildGuard = 16
	// maxProgram bounds a program in octets.
	maxProgram = 64 << 20
)

// ReadGoBuild tells of which main package and modules a Go program was built. It finds what debug/buildinfo finds, in programs
// of this system alone: that package would make our own larger by the parsers of every system's programs, 365 kB in each
// daemon's memory.
func ReadGoBuild(path string) (*debug.BuildInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	program, err := io.ReadAll(io.LimitReader(f, maxProgram))
	if err != nil {
		return nil, err
	}
	for at := 0; ; {
		i := bytes.Index(program[at:], []byte(buildMagic))
		if i < 0 {
			return nil, &os.PathError{Op: "read", Path: path, Err: ErrNoGoBuild}
		}
		if at += i; at%buildAlign == 0 {
			if info := parseGoBuild(program[at:]); info != nil {
				return info, nil
			}
		}
		at++ // the magic as it stands in this program's text, say
	}
}

// parseGoBuild reads what stands at the magic, or returns nil if it isn't that.
func parseGoBuild(b []byte) *debug.BuildInfo {
	if len(b) < buildHeader || b[len(buildMagic)+1]&buildInline == 0 {
		return nil
	}
	version, b, ok := cutGoString(b[buildHeader:])
	if !ok || !strings.HasPrefix(version, "go") && !strings.HasPrefix(version, "devel") {
		return nil
	}
	modules, _, ok := cutGoString(b)
	if !ok || len(modules) < 2*buildGuard {
		return nil
	}
	info, err := debug.ParseBuildInfo(modules[buildGuard : len(modules)-buildGuard])
	if err != nil {
		return nil
	}
	info.GoVersion = version
	return info
}

// cutGoString takes a string behind its length off b.
func cutGoString(b []byte) (s string, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", nil, false
	}
	end := size + int(n)
	return string(b[size:end]), b[end:], true
}
