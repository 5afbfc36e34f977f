package xdr_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/gportmap/gportmap/pkg/xdr"
)

func TestPadded(t *testing.T) {
	for n, want := range []int{0, 4, 4, 4, 4, 8, 8, 8, 8, 12} {
		if got := xdr.Padded(n); got != want {
			t.Errorf("Padded(%d) = %d, want %d", n, got, want)
		}
		if got := xdr.OpaqueSize(n); got != want+4 {
			t.Errorf("OpaqueSize(%d) = %d, want %d", n, got, want+4)
		}
	}
}

// The octets are written by hand from RFC 4506.
func TestAppend(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"uint32 zero", xdr.AppendUint32(nil, 0), "\x00\x00\x00\x00"},
		{"uint32 order", xdr.AppendUint32(nil, 0x01020304), "\x01\x02\x03\x04"},
		{"uint32 largest", xdr.AppendUint32(nil, math.MaxUint32), "\xff\xff\xff\xff"},
		{"int32 -1", xdr.AppendInt32(nil, -1), "\xff\xff\xff\xff"},
		{"int32 smallest", xdr.AppendInt32(nil, math.MinInt32), "\x80\x00\x00\x00"},
		{"uint64 order", xdr.AppendUint64(nil, 0x0102030405060708), "\x01\x02\x03\x04\x05\x06\x07\x08"},
		{"int64 -2", xdr.AppendInt64(nil, -2), "\xff\xff\xff\xff\xff\xff\xff\xfe"},
		{"float32 -1.5", xdr.AppendFloat32(nil, -1.5), "\xbf\xc0\x00\x00"},
		{"float64 1", xdr.AppendFloat64(nil, 1), "\x3f\xf0\x00\x00\x00\x00\x00\x00"},
		{"float64 -0", xdr.AppendFloat64(nil, math.Copysign(0, -1)), "\x80\x00\x00\x00\x00\x00\x00\x00"},
		{"fixed 0", xdr.AppendFixed(nil, nil), ""},
		{"fixed 3", xdr.AppendFixed(nil, []byte("abc")), "abc\x00"},
		{"fixed 4", xdr.AppendFixed(nil, []byte("abcd")), "abcd"},
		{"bool false", xdr.AppendBool(nil, false), "\x00\x00\x00\x00"},
		{"bool true", xdr.AppendBool(nil, true), "\x00\x00\x00\x01"},
		{"opaque nil", xdr.AppendOpaque(nil, nil), "\x00\x00\x00\x00"},
		{"opaque 1", xdr.AppendOpaque(nil, []byte("a")), "\x00\x00\x00\x01a\x00\x00\x00"},
		{"opaque 2", xdr.AppendOpaque(nil, []byte("ab")), "\x00\x00\x00\x02ab\x00\x00"},
		{"opaque 3", xdr.AppendOpaque(nil, []byte("abc")), "\x00\x00\x00\x03abc\x00"},
		{"opaque 4", xdr.AppendOpaque(nil, []byte("abcd")), "\x00\x00\x00\x04abcd"},
		{"string 0", xdr.AppendString(nil, ""), "\x00\x00\x00\x00"},
		{"string 5", xdr.AppendString(nil, "abcde"), "\x00\x00\x00\x05abcde\x00\x00\x00"},
		{"behind other octets", xdr.AppendString([]byte("x"), "ab"), "x\x00\x00\x00\x02ab\x00\x00"},
	}
	for _, tt := range tests {
		if string(tt.got) != tt.want {
			t.Errorf("%s: % x, want % x", tt.name, tt.got, tt.want)
		}
	}
}

// Padding is written, not left to what the slice's spare room held.
func TestAppendOverwritesSpareRoom(t *testing.T) {
	room := bytes.Repeat([]byte{0xff}, 64)
	if got, want := xdr.AppendString(room[:0], "a"), "\x00\x00\x00\x01a\x00\x00\x00"; string(got) != want {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestDecoder(t *testing.T) {
	const in = "\x00\x00\x00\x07" + "\x00\x00\x00\x01" + "\x00\x00\x00\x00" +
		"\x00\x00\x00\x03abc\x00" + "defgh\x00\x00\x00" + "rest"
	d := xdr.NewDecoder([]byte(in))
	if got := d.Uint32(); got != 7 {
		t.Errorf("Uint32 = %d", got)
	}
	if !d.Bool() || d.Bool() {
		t.Error("Bool, Bool: want true, false")
	}
	if got := d.Opaque(3); string(got) != "abc" || cap(got) != 3 {
		t.Errorf("Opaque = %q with capacity %d, want abc with 3", got, cap(got))
	}
	if got := d.Fixed(5); string(got) != "defgh" || cap(got) != 5 {
		t.Errorf("Fixed = %q with capacity %d, want defgh with 5", got, cap(got))
	}
	if string(d.Rest()) != "rest" || d.Err() != nil {
		t.Errorf("Rest = %q, Err = %v", d.Rest(), d.Err())
	}
}

func TestDecoderErrors(t *testing.T) {
	opaque := func(limit uint32) func(*xdr.Decoder) any {
		return func(d *xdr.Decoder) any { return len(d.Opaque(limit)) }
	}
	fixed := func(n uint32) func(*xdr.Decoder) any {
		return func(d *xdr.Decoder) any { return len(d.Fixed(n)) }
	}
	number := func(d *xdr.Decoder) any { return int(d.Uint32()) }
	boolean := func(d *xdr.Decoder) any {
		if d.Bool() {
			return 1
		}
		return 0
	}
	tests := []struct {
		name string
		in   string
		read func(*xdr.Decoder) any
		want int // value or length
		err  error
	}{
		{"uint32 of nothing", "", number, 0, xdr.ErrTruncated},
		{"uint32 of 3", "\x00\x00\x01", number, 0, xdr.ErrTruncated},
		{"bool of 3", "\x00\x00\x01", boolean, 0, xdr.ErrTruncated},
		{"bool 2", "\x00\x00\x00\x02", boolean, 0, xdr.ErrBadBool},
		{"bool 2^24", "\x01\x00\x00\x00", boolean, 0, xdr.ErrBadBool},
		{"bool 2^32-1", "\xff\xff\xff\xff", boolean, 0, xdr.ErrBadBool},
		{"opaque at its limit", "\x00\x00\x00\x04abcd", opaque(4), 4, nil},
		{"opaque above its limit", "\x00\x00\x00\x05abcde\x00\x00\x00", opaque(4), 0, xdr.ErrTooLong},
		{"opaque empty, limit 0", "\x00\x00\x00\x00", opaque(0), 0, nil},
		{"opaque without padding", "\x00\x00\x00\x03abc", opaque(4), 0, xdr.ErrTruncated},
		{"opaque with odd padding", "\x00\x00\x00\x03abcX", opaque(4), 3, nil},
		{"opaque 2^31-1", "\x7f\xff\xff\xffabcd", opaque(math.MaxUint32), 0, xdr.ErrTruncated},
		{"opaque 2^31", "\x80\x00\x00\x00abcd", opaque(math.MaxUint32), 0, xdr.ErrTruncated},
		{"opaque 2^32-4", "\xff\xff\xff\xfcabcd", opaque(math.MaxUint32), 0, xdr.ErrTruncated},
		{"opaque 2^32-3, pads to 2^32", "\xff\xff\xff\xfdabcd", opaque(math.MaxUint32), 0, xdr.ErrTruncated},
		{"opaque 2^32-1, pads to 2^32", "\xff\xff\xff\xffabcd", opaque(math.MaxUint32), 0, xdr.ErrTruncated},
		{"fixed 0 of nothing", "", fixed(0), 0, nil},
		{"fixed 2^32-1", "abcd", fixed(math.MaxUint32), 0, xdr.ErrTruncated},
		{"fixed 2^31-1", "abcd", fixed(math.MaxInt32), 0, xdr.ErrTruncated},
		{"fixed without padding", "abcde", fixed(5), 0, xdr.ErrTruncated},
	}
	for _, tt := range tests {
		d := xdr.NewDecoder([]byte(tt.in))
		if got := tt.read(&d); got != tt.want || !errors.Is(d.Err(), tt.err) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, got, d.Err(), tt.want, tt.err)
		}
	}
}

// What is appended is read back, at the ends of the ranges.
func TestNumbers(t *testing.T) {
	for _, v := range []int64{0, 1, -1, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64} {
		d := xdr.NewDecoder(xdr.AppendUint64(xdr.AppendInt64(xdr.AppendInt32(nil, int32(v)), v), uint64(v)))
		if a, b, c := d.Int32(), d.Int64(), d.Uint64(); a != int32(v) || b != v || c != uint64(v) || d.Err() != nil || len(d.Rest()) != 0 {
			t.Errorf("%d: %d, %d, %d, %v", v, a, b, c, d.Err())
		}
	}
	for _, v := range []float64{0, 1, -1, math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, math.NaN()} {
		d := xdr.NewDecoder(xdr.AppendFloat64(xdr.AppendFloat32(nil, float32(v)), v))
		a, b := d.Float32(), d.Float64()
		if math.Float32bits(a) != math.Float32bits(float32(v)) || math.Float64bits(b) != math.Float64bits(v) || d.Err() != nil {
			t.Errorf("%v: %v, %v, %v", v, a, b, d.Err())
		}
	}
}

// A count is refused before anything is allocated for it.
func TestDecoderCount(t *testing.T) {
	tests := []struct {
		name        string
		in          string
		limit, size uint32
		want        int
		err         error
	}{
		{"none", "\x00\x00\x00\x00", 0, 4, 0, nil},
		{"at the limit", "\x00\x00\x00\x02aaaabbbb", 2, 4, 2, nil},
		{"above the limit", "\x00\x00\x00\x03aaaabbbbcccc", 2, 4, 0, xdr.ErrTooLong},
		{"above the limit and what is there", "\xff\xff\xff\xff", 2, 4, 0, xdr.ErrTooLong},
		{"one item short", "\x00\x00\x00\x03aaaabbbb", 3, 4, 0, xdr.ErrTruncated},
		{"one octet short", "\x00\x00\x00\x02aaaabbb", 3, 4, 0, xdr.ErrTruncated},
		{"larger items than there are octets", "\x00\x00\x00\x02aaaabbbb", 3, 8, 0, xdr.ErrTruncated},
		{"size 0 counts as 4", "\xff\xff\xff\xffaaaa", math.MaxUint32, 0, 0, xdr.ErrTruncated},
		{"2^32-1 of 2^32-1", "\xff\xff\xff\xffaaaa", math.MaxUint32, math.MaxUint32, 0, xdr.ErrTruncated},
		{"2^30 of 4", "\x40\x00\x00\x00aaaa", math.MaxUint32, 4, 0, xdr.ErrTruncated},
		{"no count", "\x00\x00", 1, 4, 0, xdr.ErrTruncated},
	}
	for _, tt := range tests {
		d := xdr.NewDecoder([]byte(tt.in))
		if got := d.Count(tt.limit, tt.size); got != tt.want || d.Err() != tt.err {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, got, d.Err(), tt.want, tt.err)
		}
	}
}

func TestDecoderFail(t *testing.T) {
	d := xdr.NewDecoder([]byte("\x00\x00\x00\x01\x00\x00\x00\x02"))
	d.Fail(nil)
	if got := d.Uint32(); got != 1 || d.Err() != nil {
		t.Errorf("after Fail(nil): %d, %v", got, d.Err())
	}
	d.Fail(xdr.ErrBadEnum)
	d.Fail(xdr.ErrTooLong)
	if got := d.Uint32(); got != 0 || d.Err() != xdr.ErrBadEnum || d.Rest() != nil {
		t.Errorf("after Fail: %d, %v, rest %q; want 0, %v", got, d.Err(), d.Rest(), xdr.ErrBadEnum)
	}
}

// A string is a copy: it stays when the input changes.
func TestDecoderString(t *testing.T) {
	in := xdr.AppendString(nil, "abcde")
	d := xdr.NewDecoder(in)
	got := d.String(5)
	clear(in)
	if got != "abcde" || d.Err() != nil {
		t.Errorf("%q, %v", got, d.Err())
	}
	d = xdr.NewDecoder(xdr.AppendString(nil, "abcde"))
	if got := d.String(4); got != "" || d.Err() != xdr.ErrTooLong {
		t.Errorf("over the limit: %q, %v", got, d.Err())
	}
}

// After an error nothing is read any more and the first error stays.
func TestDecoderErrorIsSticky(t *testing.T) {
	d := xdr.NewDecoder([]byte("\x00\x00\x00\x09\x00\x00\x00\x01more octets."))
	if d.Bool() || d.Err() != xdr.ErrBadBool {
		t.Fatalf("Bool of 9: Err = %v", d.Err())
	}
	if d.Uint32() != 0 || d.Bool() || d.Opaque(100) != nil || d.Fixed(4) != nil || d.Fixed(0) != nil || d.Rest() != nil {
		t.Error("something was read after the error")
	}
	if d.Err() != xdr.ErrBadBool {
		t.Errorf("the later error %v took the first one's place", d.Err())
	}
}

// A structure of every kind of item, cut at every octet, gives an error and no panic.
func TestDecoderTruncationLadder(t *testing.T) {
	whole := xdr.AppendUint32(nil, 1)
	whole = xdr.AppendBool(whole, true)
	whole = xdr.AppendOpaque(whole, []byte("abcde"))
	whole = append(whole, "fixd"...)
	read := func(b []byte) (xdr.Decoder, string) {
		d := xdr.NewDecoder(b)
		d.Uint32()
		d.Bool()
		s := string(d.Opaque(5)) + string(d.Fixed(4))
		return d, s
	}
	for n := range whole {
		if d, _ := read(whole[:n]); d.Err() != xdr.ErrTruncated {
			t.Errorf("cut to %d octets: %v", n, d.Err())
		}
	}
	if d, s := read(whole); d.Err() != nil || s != "abcdefixd" || len(d.Rest()) != 0 {
		t.Errorf("whole: %q, %v", s, d.Err())
	}
}

func TestZeroAllocations(t *testing.T) {
	buf := make([]byte, 0, 64)
	var sink uint32
	n := testing.AllocsPerRun(100, func() {
		b := xdr.AppendString(xdr.AppendBool(xdr.AppendUint32(buf, 7), true), "0.0.0.0.8.1")
		d := xdr.NewDecoder(b)
		sink += d.Uint32()
		if d.Bool() {
			sink += uint32(len(d.Opaque(64)))
		}
	})
	if n != 0 || sink == 0 {
		t.Errorf("%v allocations a run, want 0", n)
	}
}

// FuzzDecoder runs a Decoder over data with a program of reads, u for Uint32, b for Bool, o for Opaque and x for
// Fixed, and checks that it never reads more than there is,
// that errors stick, and that everything read can be written again as it was but for the padding.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("ubox"), []byte("\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x03abc\x00defg"))
	f.Add([]byte("o"), []byte("\xff\xff\xff\xffabcd"))
	f.Add([]byte("oo"), []byte("\x7f\xff\xff\xff"))
	f.Add([]byte("bbb"), []byte("\x00\x00\x00\x01\x00\x00\x00\x02"))
	f.Fuzz(func(t *testing.T, program, data []byte) {
		d := xdr.NewDecoder(data)
		var again []byte
		for _, op := range program {
			failed := d.Err()
			before := len(d.Rest())
			switch op % 4 {
			case 'u' % 4:
				again = xdr.AppendUint32(again, d.Uint32())
			case 'b' % 4:
				again = xdr.AppendBool(again, d.Bool())
			case 'o' % 4:
				again = xdr.AppendOpaque(again, d.Opaque(uint32(op)))
			default:
				b := d.Fixed(uint32(op) / 4)
				again = append(again, b...)
				again = append(again, make([]byte, xdr.Padded(len(b))-len(b))...)
			}
			if failed != nil && d.Err() != failed {
				t.Fatalf("error changed from %v to %v", failed, d.Err())
			}
			if len(d.Rest()) > before {
				t.Fatal("the cursor moved back")
			}
		}
		if d.Err() != nil {
			if d.Rest() != nil {
				t.Fatal("octets left after an error")
			}
			return
		}
		if len(again)+len(d.Rest()) != len(data) {
			t.Fatalf("%d octets written for %d read", len(again), len(data)-len(d.Rest()))
		}
		data = bytes.Clone(data)
		clearPadding(program, data)
		if !bytes.Equal(again, data[:len(again)]) {
			t.Fatalf("% x\nread and written again is\n% x", data[:len(again)], again)
		}
	})
}

// clearPadding sets to zero the padding in data, which was read by program without an error.
func clearPadding(program, data []byte) {
	d := xdr.NewDecoder(data)
	for _, op := range program {
		var n int
		switch op % 4 {
		case 'u' % 4, 'b' % 4:
			d.Uint32()
		case 'o' % 4:
			n = len(d.Opaque(uint32(op)))
		default:
			n = len(d.Fixed(uint32(op) / 4))
		}
		end := len(data) - len(d.Rest())
		clear(data[end-(xdr.Padded(n)-n) : end])
	}
}

func BenchmarkAppendString(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		xdr.AppendString(buf, "0.0.0.0.8.1")
	}
}

func BenchmarkDecoderOpaque(b *testing.B) {
	in := xdr.AppendString(nil, "0.0.0.0.8.1")
	b.ReportAllocs()
	for b.Loop() {
		d := xdr.NewDecoder(in)
		d.Opaque(64)
	}
}
