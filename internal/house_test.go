// Package internal holds no code, only the test that the plan of the house is kept: which room may use which, and what
// none may do. Where the work shows a better plan, change it here and say why.
package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/gportmap/gportmap/"

// A room is a directory with the Go files in it.
type room struct {
	// of ours that it may import; "pkg/..." is everything under pkg.
	ours []string
	// never is what else it must not import; "net/..." is net and all under it.
	never []string
	// except is allowed although never forbids it.
	except []string
}

// purely is for rooms that know no socket, file, privilege or clock. Addresses are values: net/netip is allowed.
var purely = []string{"net/...", "os/...", "syscall", "time", "log/..."}

// rooms is the plan. A directory that isn't here is no room and may have no Go files, but those of tests.
var rooms = map[string]room{
	"pkg/xdr":     {never: []string{"fmt", "io/...", "net/...", "os/...", "log/..."}},
	"pkg/oncrpc":  {ours: []string{"pkg/xdr", "internal/pktinfo"}, never: []string{"log/..."}},
	"pkg/rpcbind": {ours: []string{"pkg/xdr", "pkg/oncrpc"}, never: []string{"os/...", "log/..."}},
	// The portmapper to build into a program: the daemon's pure rooms, and of sys only what tells who calls.
	"pkg/portmapper": {
		ours:  []string{"pkg/...", "internal/portmap", "internal/registry", "internal/access", "internal/sys", "internal/pktinfo"},
		never: []string{"os/..."},
	},
	// Programs to learn from, which use what every importer of pkg can. The last is a module of its own, for what it needs.
	"pkg/examples/calculator": {ours: []string{"pkg/xdr", "pkg/oncrpc", "pkg/rpcbind"}},
	"pkg/examples/services":   {ours: []string{"pkg/rpcbind"}},
	"pkg/examples/nfs":        {ours: []string{"pkg/rpcbind"}},

	"internal/registry":  {ours: []string{"pkg/rpcbind", "pkg/xdr"}, never: purely, except: []string{"net/netip"}},
	"internal/portmap":   {ours: []string{"pkg/...", "internal/registry", "internal/metrics"}, never: purely, except: []string{"net/netip"}},
	"internal/warmstart": {ours: []string{"pkg/rpcbind", "pkg/xdr", "internal/registry"}, never: []string{"net/..."}, except: []string{"net/netip"}},
	// Portmap is here for its types alone. Files come as a function that reads them.
	"internal/access": {ours: []string{"pkg/...", "internal/portmap"}, never: purely, except: []string{"net/netip"}},
	// The configuration file's form, without its meaning: the keys are cmd/gportmap's, which has them as flags too.
	"internal/config": {never: purely},
	"internal/server": {ours: []string{"pkg/oncrpc", "internal/portmap", "internal/sys", "internal/metrics"}},
	"internal/sys":    {},
	// What of it the libraries need that other systems build as well.
	"internal/pktinfo":  {never: []string{"os/...", "log/..."}},
	"internal/instance": {ours: []string{"internal/sys", "pkg/oncrpc", "pkg/rpcbind"}},
	"internal/metrics":  {},
	// Portmap is here for its types alone. Net/http would take the daemon over its limits of size.
	"internal/admin": {ours: []string{"pkg/...", "internal/metrics", "internal/portmap"}, never: []string{"net/http/..."}},

	"internal/daemon":         {ours: []string{"..."}},
	"internal/daemon/logging": {ours: []string{"internal/sys"}},
	"cmd/gportmap":            {ours: []string{"pkg/...", "internal/daemon", "internal/daemon/logging", "internal/admin", "internal/config", "internal/access"}},
	"cmd/rpcinfo":             {ours: []string{"pkg/..."}},

	// The test bed runs daemons in namespaces that it makes.
	"internal/bed": {ours: []string{"pkg/..."}},
	// The clients that the machines of .ci/bed are asked by.
	"internal/bed/callers": {ours: []string{"pkg/..."}},
	// A hostile user makes system calls, and knows nothing of ours.
	"internal/bed/neighbour": {},
}

// only says which rooms alone may import something.
var only = map[string][]string{
	"unsafe":                              {"internal/sys"},
	"reflect":                             {"internal/sys"},
	"golang.org/x/sys/...":                {"internal/sys", "internal/bed", "internal/bed/neighbour"},
	"golang.org/x/term/...":               {"cmd/gportmap", "cmd/rpcinfo"},
	"github.com/coreos/go-systemd/...":    {"internal/sys"},
	"github.com/pelletier/go-toml/...":    {"internal/config"},
	"github.com/vmware/go-nfs-client/...": {}, // it trusts what a peer announces; for tests
	module + "internal/daemon":            {"cmd/gportmap"},
	module + "internal/bed":               {},
}

// noNames are package names that say nothing.
var noNames = []string{"util", "utils", "common", "types", "helpers", "model", "models"}

// topLevel are the directories of the plan; those whose name begins with a dot belong to tools. The last two are what make
// builds and git ignores.
var topLevel = []string{"cmd", "pkg", "internal", "init", "testdata", "docs", "bin", "run"}

// source is a Go file of the tree.
type source struct {
	dir, name string // relative to the root, with slashes
	test      bool
	file      *ast.File
	fset      *token.FileSet
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, source{path.Dir(rel), rel, strings.HasSuffix(rel, "_test.go"), f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files were found under %s", len(all), root)
	}
	return all
}

// matches tells whether a path is the pattern, or under it if that ends in "/...".
func matches(pattern, p string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(p+"/", prefix)
	}
	return pattern == p
}

func matchesAny(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, p) })
}

func imports(t *testing.T, s source) []string {
	t.Helper()
	var paths []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", s.name, i.Path.Value, err)
		}
		paths = append(paths, p)
	}
	return paths
}

func TestRoomsImportWhatThePlanSays(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue // tests may use other rooms to make their point
		}
		r, ok := rooms[s.dir]
		if !ok {
			t.Errorf("%s: no room of the plan; see rooms in internal/house_test.go", s.name)
			continue
		}
		for _, p := range imports(t, s) {
			if ours, ok := strings.CutPrefix(p, module); ok && !matchesAny(r.ours, ours) {
				t.Errorf("%s imports %s; of ours it may import %q", s.name, ours, r.ours)
			}
			if matchesAny(r.never, p) && !matchesAny(r.except, p) {
				t.Errorf("%s imports %s, which %s must never", s.name, p, s.dir)
			}
		}
	}
}

func TestImportsThatFewRoomsMayHave(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, p := range imports(t, s) {
			for what, by := range only {
				if matches(what, p) && !slices.Contains(by, s.dir) {
					t.Errorf("%s imports %s; only %q may", s.name, p, by)
				}
			}
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		if slices.Contains(noNames, name) {
			t.Errorf("%s: package %s says nothing about what is in it", s.name, name)
		}
		if base := path.Base(s.dir); name != "main" && name != base {
			t.Errorf("%s: package %s in directory %s", s.name, name, base)
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%v: func init", s.fset.Position(f.Pos()))
			}
		}
	}
}

// TestNoShadowedBuiltins holds the tree to what the plan says about variables: never one named like a built-in function
// that code around it may need.
func TestNoShadowedBuiltins(t *testing.T) {
	builtins := []string{"len", "cap", "copy", "min", "max", "new"}
	for _, s := range sources(t) {
		report := func(names ...*ast.Ident) {
			for _, n := range names {
				if n != nil && slices.Contains(builtins, n.Name) {
					t.Errorf("%v: a variable is named %s", s.fset.Position(n.Pos()), n.Name)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				report(n.Names...)
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, e := range n.Lhs {
						id, _ := e.(*ast.Ident)
						report(id)
					}
				}
			case *ast.RangeStmt:
				for _, e := range []ast.Expr{n.Key, n.Value} {
					id, _ := e.(*ast.Ident)
					report(id)
				}
			case *ast.FuncType:
				for _, list := range []*ast.FieldList{n.Params, n.Results} {
					if list == nil {
						continue
					}
					for _, f := range list.List {
						report(f.Names...)
					}
				}
			}
			return true
		})
	}
}

// TestPackageVariablesDontChange looks for package-level variables that are assigned to, or whose address is taken: errors
// and constant tables are all that a package may keep.
func TestPackageVariablesDontChange(t *testing.T) {
	all := sources(t)
	variables := make(map[string]map[string]bool) // by directory
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, n := range spec.(*ast.ValueSpec).Names {
					if variables[s.dir] == nil {
						variables[s.dir] = make(map[string]bool)
					}
					variables[s.dir][n.Name] = n.Name != "_"
				}
			}
		}
	}
	for _, s := range all {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			a, ok := n.(*ast.AssignStmt)
			if !ok || a.Tok == token.DEFINE {
				return true
			}
			for _, e := range a.Lhs {
				if i, ok := e.(*ast.IndexExpr); ok {
					e = i.X
				}
				if id, ok := e.(*ast.Ident); ok && variables[s.dir][id.Name] && !declaredInside(s.file, id) {
					t.Errorf("%v: the package-level variable %s is assigned to", s.fset.Position(id.Pos()), id.Name)
				}
			}
			return true
		})
	}
}

// declaredInside tells whether a function around the identifier declares a variable of that name.
func declaredInside(f *ast.File, id *ast.Ident) bool {
	found := false
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || id.Pos() < fn.Pos() || id.Pos() > fn.End() {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					if x, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE && x.Name == id.Name {
						found = true
					}
				}
			case *ast.Field:
				for _, x := range n.Names {
					found = found || x.Name == id.Name
				}
			case *ast.ValueSpec:
				for _, x := range n.Names {
					found = found || x.Name == id.Name
				}
			}
			return true
		})
	}
	return found
}

func TestTopLevelDirectories(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("the directory %s is none of the plan: %q", e.Name(), topLevel)
		}
	}
}
