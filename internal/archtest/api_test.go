package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// published are the packages whose exported names are a promise: each has an api.txt.
var published = []string{"actor", "actor/actortest", "cluster", "storage"}

// documented are the folders whose exported names all have a comment; in the published
// packages fields and methods of interfaces too.
var documented = []string{"actor", "cluster", "storage"}

func TestPublicAPI(t *testing.T) {
	g := load(t)
	for _, path := range published {
		p := g[path]
		if p == nil {
			continue
		}
		lines := append(exported(t, p), "")
		compare(t, filepath.Join(p.dir, "api.txt"), strings.Join(lines, "\n"), "the API of "+path)
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range load(t).sorted() {
		if !under(p.path, documented) {
			continue
		}
		var missing []string
		for _, name := range p.files {
			if file := p.parse(t, name); !file.generated() {
				missing = append(missing, undocumented(file, slices.Contains(published, p.path))...)
			}
		}
		if len(missing) > 0 {
			t.Errorf("%s has exported names without a comment; say what each is for, its unit or limit, its errors, and whether it is safe for concurrent use:\n%s", p.path, strings.Join(missing, "\n"))
		}
	}
}

// exported lists a package's exported names with their signatures, one a line, sorted.
func exported(t *testing.T, p *goPackage) []string {
	t.Helper()
	var lines []string
	for _, name := range p.listed {
		lines = append(lines, fileAPI(p.parse(t, name))...)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func fileAPI(f goFile) []string {
	var lines []string
	add := func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf(format, args...))
	}
	for _, declaration := range f.syntax.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if !d.Name.IsExported() {
				continue
			}
			signature := strings.TrimPrefix(render(f, d.Type), "func")
			if d.Recv == nil {
				add("func %s%s", d.Name.Name, signature)
			} else if receiver := render(f, d.Recv.List[0].Type); ast.IsExported(receiverName(d.Recv.List[0].Type)) {
				add("method (%s) %s%s", receiver, d.Name.Name, signature)
			}
		case *ast.GenDecl:
			// Constants without a type or a value repeat those before them.
			repeated := ""
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					of := ""
					if s.Type != nil {
						of = " " + render(f, s.Type)
					}
					if d.Tok == token.CONST {
						if s.Type == nil && len(s.Values) == 0 {
							of = repeated
						}
						repeated = of
					}
					for i, name := range s.Names {
						if !name.IsExported() {
							continue
						}
						value := ""
						if i < len(s.Values) && d.Tok == token.CONST {
							value = " = " + render(f, s.Values[i])
						}
						add("%s %s%s%s", d.Tok, name.Name, of, value)
					}
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						lines = append(lines, typeAPI(f, s)...)
					}
				}
			}
		}
	}
	return lines
}

// typeAPI is a type and, each with a line of its own, its exported fields or methods.
func typeAPI(f goFile, s *ast.TypeSpec) []string {
	head := "type " + s.Name.Name
	if s.TypeParams != nil {
		var parameters []string
		for _, field := range s.TypeParams.List {
			parameters = append(parameters, fieldNames(field)+" "+render(f, field.Type))
		}
		head += "[" + strings.Join(parameters, ", ") + "]"
	}
	if s.Assign.IsValid() {
		return []string{head + " = " + render(f, s.Type)}
	}
	var lines []string
	member := func(format string, args ...any) {
		lines = append(lines, "type "+s.Name.Name+", "+fmt.Sprintf(format, args...))
	}
	switch body := s.Type.(type) {
	case *ast.StructType:
		lines = append(lines, head+" struct")
		for _, field := range body.Fields.List {
			if len(field.Names) == 0 {
				if ast.IsExported(receiverName(field.Type)) {
					member("embedded %s", render(f, field.Type))
				}
				continue
			}
			for _, name := range field.Names {
				if name.IsExported() {
					member("%s %s", name.Name, render(f, field.Type))
				}
			}
		}
	case *ast.InterfaceType:
		sealed := ""
		for _, method := range body.Methods.List {
			if len(method.Names) == 0 {
				member("%s", render(f, method.Type))
				continue
			}
			for _, name := range method.Names {
				if name.IsExported() {
					member("%s%s", name.Name, strings.TrimPrefix(render(f, method.Type), "func"))
				} else {
					// Only this package can implement it: that is part of the promise.
					sealed = ", sealed"
				}
			}
		}
		lines = append(lines, head+" interface"+sealed)
	default:
		lines = append(lines, head+" "+render(f, s.Type))
	}
	return lines
}

func fieldNames(field *ast.Field) string {
	var names []string
	for _, name := range field.Names {
		names = append(names, name.Name)
	}
	return strings.Join(names, ", ")
}

// receiverName is the name of the type in an expression such as *T, T[K] or p.T.
func receiverName(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return receiverName(e.X)
	case *ast.IndexExpr:
		return receiverName(e.X)
	case *ast.IndexListExpr:
		return receiverName(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// render is an expression on one line, without comments.
func render(f goFile, node ast.Node) string {
	var out bytes.Buffer
	if err := (&printer.Config{Mode: printer.RawFormat}).Fprint(&out, f.positions, node); err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

// undocumented lists exported names without a comment, with their positions. In a group of
// constants or variables the group's comment is enough, and for a field or method the comment
// of its type, if that speaks of it by name or there is no other method. Without fields it
// looks at neither.
func undocumented(f goFile, fields bool) []string {
	var missing []string
	check := func(at token.Pos, name string, comments ...*ast.CommentGroup) {
		for _, comment := range comments {
			if comment != nil && strings.TrimSpace(comment.Text()) != "" {
				return
			}
		}
		missing = append(missing, fmt.Sprintf("%s: %s", f.positions.Position(at), name))
	}
	for _, declaration := range f.syntax.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiverName(d.Recv.List[0].Type))) {
				check(d.Pos(), d.Name.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if name.IsExported() {
							check(name.Pos(), name.Name, s.Doc, s.Comment, d.Doc)
						}
					}
				case *ast.TypeSpec:
					if !s.Name.IsExported() {
						continue
					}
					check(s.Pos(), s.Name.Name, s.Doc, d.Doc)
					if !fields {
						continue
					}
					about := s.Doc.Text() + d.Doc.Text()
					if single, ok := s.Type.(*ast.InterfaceType); ok && len(single.Methods.List) == 1 && about != "" {
						continue
					}
					for _, field := range members(s.Type) {
						for _, name := range field.Names {
							if name.IsExported() && !mentions(about, name.Name) {
								check(name.Pos(), s.Name.Name+"."+name.Name, field.Doc, field.Comment)
							}
						}
					}
				}
			}
		}
	}
	return missing
}

func members(expression ast.Expr) []*ast.Field {
	switch e := expression.(type) {
	case *ast.StructType:
		return e.Fields.List
	case *ast.InterfaceType:
		return e.Methods.List
	}
	return nil
}

func mentions(text, name string) bool {
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(text)
}
