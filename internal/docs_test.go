package internal

import (
	"go/ast"
	"strings"
	"testing"
)

// TestExportedNamesHaveComments looks for names of pkg/ that importers see and nothing is said about: constants and
// variables count with what is said about their group, fields of structs with what is said about the struct.
func TestExportedNamesHaveComments(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.dir, "pkg/") || s.file.Name.Name == "main" {
			continue
		}
		silent := func(n *ast.Ident, said ...*ast.CommentGroup) {
			for _, c := range said {
				if strings.TrimSpace(c.Text()) != "" {
					return
				}
			}
			if n.IsExported() {
				t.Errorf("%v: nothing is said about %s", s.fset.Position(n.Pos()), n.Name)
			}
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if receiver(d) == "" || ast.IsExported(receiver(d)) {
					silent(d.Name, d.Doc)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						silent(spec.Name, d.Doc, spec.Doc, spec.Comment)
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							silent(n, d.Doc, spec.Doc, spec.Comment)
						}
					}
				}
			}
		}
	}
}

// receiver is the name of the type that a method belongs to; "" for functions.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	e := f.Recv.List[0].Type
	if p, ok := e.(*ast.StarExpr); ok {
		e = p.X
	}
	if n, ok := e.(*ast.Ident); ok {
		return n.Name
	}
	return ""
}
