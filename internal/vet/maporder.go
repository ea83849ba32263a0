package vet

import (
	"go/ast"
	"go/types"
)

// ofMap reports whether an expression has what is in a map, in the order that the map happens to
// give it: maps.Keys(m) and its like, slices.Collect of one, and a variable that is one of those and
// of which nothing is known but that it is read.
func (r *reader) ofMap(e ast.Expr) bool {
	switch e := ast.Unparen(e).(type) {
	case *ast.CallExpr:
		f := r.callee(e)
		if f == nil || f.Pkg() == nil {
			return false
		}
		switch f.Pkg().Path() {
		case "maps", "golang.org/x/exp/maps":
			return true
		case "slices":
			return f.Name() == "Collect" && len(e.Args) == 1 && r.ofMap(e.Args[0])
		}
	case *ast.Ident:
		v, ok := r.pass.TypesInfo.Uses[e].(*types.Var)
		return ok && r.onlyOfMap(v)
	}
	return false
}

// onlyOfMap: the variable is given something of a map once, and is then ranged over, or its length taken.
// Whatever it is passed to may sort it.
func (r *reader) onlyOfMap(v *types.Var) bool {
	var body *ast.BlockStmt
	for _, d := range r.decls {
		if d.Body.Pos() <= v.Pos() && v.Pos() < d.Body.End() {
			body = d.Body
		}
	}
	if body == nil {
		return false
	}
	given, read := false, map[ast.Expr]bool{}
	other := false
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, to := range n.Lhs {
				if name, ok := to.(*ast.Ident); ok && r.pass.TypesInfo.Defs[name] == v && len(n.Lhs) == len(n.Rhs) {
					_, call := ast.Unparen(n.Rhs[i]).(*ast.CallExpr)
					given = call && r.ofMap(n.Rhs[i])
				}
			}
		case *ast.RangeStmt:
			read[ast.Unparen(n.X)] = true
		case *ast.CallExpr:
			if name, ok := ast.Unparen(n.Fun).(*ast.Ident); ok && name.Name == "len" && len(n.Args) == 1 {
				read[ast.Unparen(n.Args[0])] = true
			}
		case *ast.Ident:
			other = other || r.pass.TypesInfo.Uses[n] == v && !read[n]
		}
		return true
	})
	return given && !other
}
