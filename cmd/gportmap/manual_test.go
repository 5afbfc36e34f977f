package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// longFlags returns every flag that the command help tells of, with its dashes.
func longFlags() []string {
	flags := regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(manual("gportmap"), -1)
	slices.Sort(flags)
	return slices.Compact(flags)
}

func commandNames() []string {
	names := []string{"takeover", "check-config", "explain", "help"}
	for name := range controls() {
		names = append(names, name)
	}
	for name := range commands() {
		names = append(names, name)
	}
	return names
}

// TestManualAndCompletionHaveEverything holds the pages and the shells' completion to what the program takes.
func TestManualAndCompletionHaveEverything(t *testing.T) {
	if n := len(longFlags()); n < 30 {
		t.Fatalf("only %d flags were found", n)
	}
	for _, path := range []string{"docs/man/gportmap.8.md", "init/completion/gportmap.bash", "init/completion/gportmap.zsh", "init/completion/gportmap.fish"} {
		b, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		word := func(w string) bool {
			return regexp.MustCompile(`(^|[^a-z-])` + regexp.QuoteMeta(w) + `($|[^a-z-])`).MatchString(text)
		}
		for _, f := range longFlags() {
			if name := strings.TrimPrefix(f, "--"); !word(f) && !(strings.HasSuffix(path, "fish") && strings.Contains(text, "-l "+name)) {
				t.Errorf("%s doesn't have %s", path, f)
			}
		}
		for _, c := range commandNames() {
			if !word(c) {
				t.Errorf("%s doesn't have the command %s", path, c)
			}
		}
	}
}

// TestBashCompletion asks bash.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	for line, want := range map[string]string{
		"gportmap st": "status stop", "gportmap --admin": "--admin-group", "gportmap status --js": "--json",
		"gportmap firewall --format ": "nft firewalld ufw", "gportmap --exposure l": "lan local", "gportmap -f wat": "watch",
	} {
		words := strings.Split(line, " ")
		script := `. ../../init/completion/gportmap.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gportmap; echo "${COMPREPLY[*]}"`
		out, err := exec.Command(bash, append([]string{"-c", script, "bash"}, words...)...).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q: %q, %v, want %q", line, out, err, want)
		}
	}
}
