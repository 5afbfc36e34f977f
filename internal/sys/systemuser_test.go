package sys

import "testing"

func TestLastSystemUID(t *testing.T) {
	for defs, want := range map[string]uint32{
		"":                               999,
		"#SYS_UID_MAX 499\n":             999,
		"UID_MIN 1000\nSYS_UID_MAX\t499": 499,
		"SYS_UID_MAX 0x1f3 # odd\n":      499,
		"SYS_UID_MAX many\n":             999,
		"SYS_UID_MAX -1\nSYS_UID_MAX\n":  999,
	} {
		if got := lastSystemUID(defs); got != want {
			t.Errorf("%q: %d, want %d", defs, got, want)
		}
	}
}
