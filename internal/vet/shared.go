package vet

import (
	"go/ast"
	"go/types"
)

// What handlers write beside their object's state: variables of a package, and what their receiver has. A type
// is registered once, so its one value serves all objects and all attempts of the process.

// readWrite reports a write of something that all objects of the process share: of the expression, or of what is
// behind it.
func (r *reader) readWrite(to ast.Expr, behind bool) {
	name := r.rootOf(to)
	if name == nil || r.at.once {
		return
	}
	v, ok := r.pass.TypesInfo.Uses[name].(*types.Var)
	if !ok || v.Pkg() == nil || v.IsField() {
		return
	}
	why := map[mode]string{
		modeDurable:     "each replay writes it again, and a restart forgets it",
		modeTransaction: "a try that is rolled back has written it all the same",
	}[r.at.mode]
	switch {
	case v.Parent() == v.Pkg().Scope():
		r.report(ruleGlobal, to.Pos(), "a %s handler writes %s, a variable of the package: %s; keep it in the object's state", r.at.mode, v.Name(), why)
	case v == r.at.receiver && (behind || r.throughPointer(to)):
		r.report(ruleGlobal, to.Pos(), "a %s handler writes %s, which all objects of the process share: %s; keep it in the object's state", r.at.mode, types.ExprString(to), why)
	}
}

// readBuiltin finds the writes of functions such as delete.
func (r *reader) readBuiltin(call *ast.CallExpr) {
	name, ok := ast.Unparen(call.Fun).(*ast.Ident)
	if !ok || len(call.Args) == 0 {
		return
	}
	if _, builtin := r.pass.TypesInfo.Uses[name].(*types.Builtin); !builtin {
		return
	}
	switch name.Name {
	case "delete", "clear", "copy":
		r.readWrite(call.Args[0], true)
	}
}

// throughPointer: a write of the expression is seen by whoever has what its first variable was copied from: on
// the way is a pointer, a map or a slice. To set the variable itself, or a field of a copied struct, is nobody's
// business.
func (r *reader) throughPointer(e ast.Expr) bool {
	for {
		switch x := ast.Unparen(e).(type) {
		case *ast.StarExpr:
			return true
		case *ast.SelectorExpr:
			if selection := r.pass.TypesInfo.Selections[x]; selection != nil && selection.Indirect() {
				return true
			}
			e = x.X
		case *ast.IndexExpr:
			if _, array := r.pass.TypesInfo.TypeOf(x.X).Underlying().(*types.Array); !array {
				return true
			}
			e = x.X
		default:
			return false
		}
	}
}

// onReceiver: the method is called on the receiver that all share, and so has it for its own. What a field's
// methods write is that type's business: it may be a cache that is meant, under a lock of its own.
func (r *reader) onReceiver(call *ast.CallExpr) bool {
	selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok || r.at.receiver == nil {
		return false
	}
	name, ok := ast.Unparen(selector.X).(*ast.Ident)
	return ok && r.pass.TypesInfo.Uses[name] == r.at.receiver
}

// sharedReceiver is the variable that a method has its receiver in, nil if it has no name.
func (r *reader) sharedReceiver(d *ast.FuncDecl) *types.Var {
	if d.Recv == nil || len(d.Recv.List) == 0 || len(d.Recv.List[0].Names) == 0 {
		return nil
	}
	v, _ := r.pass.TypesInfo.Defs[d.Recv.List[0].Names[0]].(*types.Var)
	return v
}

// readOnce reads the arguments of sync.Once.Do: what is made there at first use is the process's own, and no
// replay or try makes it again.
func (r *reader) readOnce(f *types.Func, call *ast.CallExpr) bool {
	if f.Pkg() == nil || f.Pkg().Path() != "sync" || receiverName(f) != "Once" {
		return false
	}
	outer := r.at.once
	r.at.once = true
	for _, argument := range call.Args {
		ast.Walk(visitor{r}, argument)
	}
	r.at.once = outer
	return true
}
