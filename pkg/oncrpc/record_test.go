package oncrpc

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// fragment appends b behind a record mark of its own.
func fragment(dst, b []byte, last bool) []byte {
	mark := uint32(len(b))
	if last {
		mark |= 1 << 31
	}
	return append(binary.BigEndian.AppendUint32(dst, mark), b...)
}

// cutRecords is the plain way to cut a stream that is there as a whole: the oracle of RecordReader.
func cutRecords(stream []byte, limit int) (records []string, err error) {
	var record []byte
	for len(stream) >= 4 {
		mark := binary.BigEndian.Uint32(stream)
		n, last := int64(mark&0x7fffffff), mark>>31 == 1
		if int64(len(record))+n > int64(limit) {
			return records, ErrRecordTooLong
		}
		if n == 0 && !last {
			return records, ErrEmptyFragment
		}
		if int64(len(stream)-4) < n {
			break
		}
		record = append(record, stream[4:4+n]...)
		stream = stream[4+n:]
		if last {
			records = append(records, string(record))
			record = nil
		}
	}
	return records, nil
}

// readRecords feeds the stream in segments of the given sizes, again and again, through one slice that is
// overwritten as soon as Next has returned false.
func readRecords(r *RecordReader, stream []byte, sizes []int) (records []string, err error) {
	var buf []byte
	for i := 0; len(stream) > 0; i++ {
		n := min(max(sizes[i%len(sizes)], 1), len(stream))
		buf = append(buf[:0], stream[:n]...)
		stream = stream[n:]
		r.Feed(buf)
		for {
			record, ok, nextErr := r.Next()
			if !ok {
				err = nextErr
				break
			}
			records = append(records, string(record))
		}
		for i := range buf {
			buf[i] = 0xee
		}
	}
	return records, err
}

func TestRecordsInEverySegmentation(t *testing.T) {
	stream := fragment(nil, []byte("a"), false)
	stream = fragment(stream, []byte("b"), true)
	stream = fragment(stream, nil, true)
	want := []string{"ab", ""}
	for cuts := range 1 << (len(stream) - 1) {
		var sizes []int
		size := 1
		for i := range len(stream) - 1 {
			if cuts>>i&1 == 1 {
				sizes = append(sizes, size)
				size = 0
			}
			size++
		}
		sizes = append(sizes, size)
		r := RecordReader{Limit: 2}
		if got, err := readRecords(&r, stream, sizes); err != nil || !slices.Equal(got, want) || r.Pending() {
			t.Fatalf("segments %v: %q, %v, pending %v; want %q", sizes, got, err, r.Pending(), want)
		}
	}
}

func TestRecordsInEveryFragmentation(t *testing.T) {
	const message = "abcdefg"
	for cuts := range 1 << (len(message) - 1) {
		for _, emptyLast := range []bool{false, true} {
			var stream []byte
			start := 0
			for i := 1; i < len(message); i++ {
				if cuts>>(i-1)&1 == 1 {
					stream = fragment(stream, []byte(message[start:i]), false)
					start = i
				}
			}
			stream = fragment(stream, []byte(message[start:]), !emptyLast)
			if emptyLast {
				stream = fragment(stream, nil, true)
			}
			stream = append(stream, stream...)
			for size := 1; size <= len(stream); size++ {
				r := RecordReader{Limit: len(message)}
				got, err := readRecords(&r, stream, []int{size})
				if err != nil || !slices.Equal(got, []string{message, message}) || r.Pending() {
					t.Fatalf("cuts %b, segments of %d: %q, %v, pending %v", cuts, size, got, err, r.Pending())
				}
			}
		}
	}
}

// Every prefix of a stream gives the records that are whole in it, and Pending tells of the rest.
func TestRecordTruncationLadder(t *testing.T) {
	stream := fragment(nil, []byte("first"), true)
	ends := []int{len(stream)}
	stream = fragment(fragment(stream, []byte("sec"), false), []byte("ond"), true)
	ends = append(ends, len(stream))
	for n := range len(stream) + 1 {
		want := 0
		for want < len(ends) && ends[want] <= n {
			want++
		}
		r := RecordReader{Limit: 100}
		got, err := readRecords(&r, stream[:n], []int{n})
		atEnd := n == 0 || slices.Contains(ends, n)
		if err != nil || len(got) != want || r.Pending() == atEnd {
			t.Errorf("%d octets: %q, %v, pending %v; want %d records, pending %v", n, got, err, r.Pending(), want, !atEnd)
		}
	}
}

func TestRecordErrors(t *testing.T) {
	good := fragment(nil, []byte("good"), true)
	tests := []struct {
		name   string
		stream []byte
		want   []string
		err    error
	}{
		{"at the limit", fragment(nil, []byte("12345678"), true), []string{"12345678"}, nil},
		{"above the limit", fragment(nil, []byte("123456789"), true), nil, ErrRecordTooLong},
		{"above the limit, announced only", []byte{0x80, 0, 0, 9}, nil, ErrRecordTooLong},
		{"2^31-1, last", []byte{0xff, 0xff, 0xff, 0xff}, nil, ErrRecordTooLong},
		{"2^31-1, not last", []byte{0x7f, 0xff, 0xff, 0xff}, nil, ErrRecordTooLong},
		{"fragments above the limit together", fragment(fragment(nil, []byte("1234567"), false), []byte("89"), true),
			nil, ErrRecordTooLong},
		{"fragment of 2^31-1 behind another", append(fragment(nil, []byte("1"), false), 0x7f, 0xff, 0xff, 0xff),
			nil, ErrRecordTooLong},
		{"empty fragment", []byte{0, 0, 0, 0}, nil, ErrEmptyFragment},
		{"empty fragment in a record", append(fragment(nil, []byte("1"), false), 0, 0, 0, 0), nil, ErrEmptyFragment},
		{"good ones first", append(bytes.Clone(good), 0, 0, 0, 0), []string{"good"}, ErrEmptyFragment},
	}
	for _, tt := range tests {
		for size := 1; size <= len(tt.stream); size++ {
			r := RecordReader{Limit: 8}
			got, err := readRecords(&r, tt.stream, []int{size})
			if err != tt.err || !slices.Equal(got, tt.want) {
				t.Errorf("%s in segments of %d: %q, %v; want %q, %v", tt.name, size, got, err, tt.want, tt.err)
			}
			if err == nil {
				continue
			}
			if again, err := readRecords(&r, good, []int{len(good)}); again != nil || err != tt.err || r.Pending() || r.record != nil {
				t.Errorf("%s, then a good record: %q, %v, pending %v", tt.name, again, err, r.Pending())
			}
		}
	}
	var zero RecordReader
	if got, err := readRecords(&zero, []byte{0x80, 0, 0, 0, 0x80, 0, 0, 1}, []int{8}); len(got) != 1 || err != ErrRecordTooLong {
		t.Errorf("zero value: %q, %v; want one empty record and %v", got, err, ErrRecordTooLong)
	}
}

// Asking again, without having fed, is harmless.
func TestNextTwice(t *testing.T) {
	stream := fragment(fragment(nil, []byte("ab"), false), []byte("cd"), true)
	for n := 1; n < len(stream); n++ {
		r := RecordReader{Limit: 4}
		r.Feed(bytes.Clone(stream[:n]))
		for range 3 {
			if _, ok, err := r.Next(); ok || err != nil || !r.Pending() {
				t.Fatalf("%d octets: %v, %v, pending %v", n, ok, err, r.Pending())
			}
		}
		r.Feed(stream[n:])
		if record, ok, err := r.Next(); string(record) != "abcd" || !ok || err != nil {
			t.Fatalf("cut at %d: %q, %v, %v", n, record, ok, err)
		}
	}
}

// What is held is in proportion to what has arrived of one record, not to what was announced, and small between
// records.
func TestRecordMemory(t *testing.T) {
	const limit = 1 << 20
	r := RecordReader{Limit: limit}
	stream := fragment(fragment(nil, make([]byte, limit-10), false), make([]byte, 10), true)
	stream = fragment(stream, []byte("next"), true)
	arrived := 0
	for seg := range slices.Chunk(stream, 1000) {
		r.Feed(seg)
		for {
			record, ok, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			arrived = -len(record)
		}
		arrived += len(seg)
		if held := cap(r.record); held > 2*max(arrived, 1000) {
			t.Fatalf("%d octets held for %d that arrived", held, arrived)
		}
	}
	if held := cap(r.record); held > keepBetweenRecords {
		t.Errorf("%d octets held between records, want at most %d", held, keepBetweenRecords)
	}
}

func TestBeginEndRecord(t *testing.T) {
	b := []byte("before")
	start := len(b)
	b = append(BeginRecord(b), "message"...)
	EndRecord(b, start)
	if want := "before\x80\x00\x00\x07message"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
	b = BeginRecord(nil)
	EndRecord(b, 0)
	if want := "\x80\x00\x00\x00"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
}

func TestRecordAllocations(t *testing.T) {
	whole := fragment(nil, make([]byte, 80), true)
	pipelined := bytes.Repeat(whole, 20)
	fragmented := fragment(fragment(nil, make([]byte, 40), false), make([]byte, 40), true)
	buf := make([]byte, len(pipelined))
	for name, f := range map[string]struct {
		stream []byte
		size   int
		want   int
	}{
		"whole":                {whole, len(whole), 1},
		"octet by octet":       {whole, 1, 1},
		"pipelined":            {pipelined, len(pipelined), 20},
		"pipelined and cut":    {pipelined, 100, 20},
		"fragmented":           {fragmented, len(fragmented), 1},
		"fragmented in pieces": {fragmented, 7, 1},
	} {
		r := RecordReader{Limit: 9000}
		got := 0
		run := func() {
			got = 0
			for s := f.stream; len(s) > 0; {
				n := copy(buf[:f.size], s)
				s = s[n:]
				r.Feed(buf[:n])
				for {
					if _, ok, err := r.Next(); !ok || err != nil {
						break
					}
					got++
				}
			}
		}
		run() // the first run makes the buffer
		if n := testing.AllocsPerRun(100, run); n != 0 || got != f.want {
			t.Errorf("%s: %v allocations a run, %d records; want 0, %d", name, n, got, f.want)
		}
	}
}

func BenchmarkRecordReader(b *testing.B) {
	whole := fragment(nil, make([]byte, 80), true)
	for _, bb := range []struct {
		name   string
		stream []byte
		size   int
	}{
		{"shape=whole", whole, len(whole)},
		{"shape=split", whole, 50},
		{"shape=pipelined20", bytes.Repeat(whole, 20), 1680},
		{"shape=megabyte", fragment(nil, make([]byte, 1<<20), true), 1460},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := RecordReader{Limit: 1 << 20}
			b.ReportAllocs()
			b.SetBytes(int64(len(bb.stream)))
			for b.Loop() {
				for seg := range slices.Chunk(bb.stream, bb.size) {
					r.Feed(seg)
					for {
						if _, ok, _ := r.Next(); !ok {
							break
						}
					}
				}
			}
		})
	}
}
