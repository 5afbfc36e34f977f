package internal

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTestsThatExist holds SECURITY.md to the tests: a promise whose test was renamed or removed is none.
func TestSecurityNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, s := range sources(t) {
		if s.test {
			b, err := os.ReadFile("../" + s.name)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(b)
		}
	}
	all := tests.String()
	names := regexp.MustCompile("`(Test[A-Za-z0-9_]+)(/([^`…]+))?(…?)").FindAllStringSubmatch(string(page), -1)
	if len(names) < 30 {
		t.Fatalf("only %d tests are named", len(names))
	}
	for _, n := range names {
		test, part, open := n[1], n[3], n[4] != ""
		want := "func " + test + "("
		if open && part == "" {
			want = "func " + test
		}
		if !strings.Contains(all, want) {
			t.Errorf("there is no %s", test)
		}
		if part != "" && !strings.Contains(all, `"`+part) {
			t.Errorf("%s has no part %s", test, part)
		}
	}
}
