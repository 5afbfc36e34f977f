package internal

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// requirements reads the modules that a go.mod requires, and their versions.
func requirements(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	required := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") && strings.Contains(fields[0], "/") {
			required[fields[0]] = fields[1]
		}
	}
	return required
}

// TestNestedModulesFollow keeps the modules inside this one that build parts of it in step with its go.mod: where both
// require a module, go refuses to build the nested one with an older version.
func TestNestedModulesFollow(t *testing.T) {
	ours := requirements(t, "../go.mod")
	if len(ours) < 3 {
		t.Fatalf("go.mod requires %v", ours)
	}
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" || p == filepath.Join("..", "go.mod") {
			return err
		}
		theirs := requirements(t, p)
		if theirs[strings.TrimSuffix(module, "/")] == "" {
			return nil // it doesn't build anything of ours
		}
		for module, version := range theirs {
			if have, ok := ours[module]; ok && have != version {
				t.Errorf("%s requires %s %s, and go.mod %s: run go -C %s mod tidy", p[3:], module, version, have, filepath.Dir(p[3:]))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
