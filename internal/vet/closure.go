package vet

import (
	"go/ast"
	"go/types"
)

// runs are the functions of actor whose closures run outside of the journal.
var runs = map[string]bool{"Run": true, "RunAsync": true, "Do": true}

// closureOf is the function literal that a call gives to a Run, nil if it is no Run or gives
// none.
func (r *reader) closureOf(f *types.Func, call *ast.CallExpr) *ast.FuncLit {
	if f.Pkg() == nil {
		return nil
	}
	if !(f.Pkg().Path() == actorPath && runs[f.Name()]) && !extra.runs[f.Pkg().Path()+"."+f.Name()] {
		return nil
	}
	for _, argument := range call.Args {
		if literal, ok := ast.Unparen(argument).(*ast.FuncLit); ok {
			return literal
		}
	}
	return nil
}

func (r *reader) readClosure(f *types.Func, call *ast.CallExpr, closure *ast.FuncLit) {
	r.readModeStep(f, call)
	for _, argument := range call.Args {
		if ast.Unparen(argument) != closure {
			ast.Walk(visitor{r}, argument)
		}
	}
	outer := r.at
	r.at.closure, r.at.run = closure, f.Name()
	ast.Walk(visitor{r}, closure.Body)
	r.at = outer
}

// identity are the methods of a handler's context that a closure may call: they answer the same
// at any time.
var identity = map[string]bool{"InvocationID": true, "Key": true, "Attempt": true, "Logger": true}

// readInClosure applies the only rule for closures: nothing of the handler's journal inside.
func (r *reader) readInClosure(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		f := r.callee(n)
		if f == nil {
			return true
		}
		if selector, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr); ok && identity[f.Name()] && r.contextValue(r.pass.TypesInfo.TypeOf(selector.X)) {
			return false
		}
		if f.Pkg() != nil && f.Pkg().Path() == actorPath && f.Signature().Recv() == nil && stepFunctions[f.Name()] {
			r.report(ruleOuterCtx, n.Pos(), "actor.%s inside the closure of %s: a closure cannot make steps; make them before or after it", f.Name(), r.at.run)
			return false
		}
	case *ast.Ident:
		v, ok := r.pass.TypesInfo.Uses[n].(*types.Var)
		if !ok || v.IsField() || !r.outside(v) {
			return true
		}
		switch {
		case r.contextValue(v.Type()):
			r.report(ruleOuterCtx, n.Pos(), "the handler's %s inside the closure of %s: use the closure's own context; steps are made before or after it", v.Name(), r.at.run)
		case named(v.Type(), "context", "Context"):
			r.report(ruleOuterCtx, n.Pos(), "%s comes from outside the closure of %s: use the closure's own context, which ends with the attempt", v.Name(), r.at.run)
		}
	}
	return true
}

// outside: the variable is declared around the closure, in a function.
func (r *reader) outside(v *types.Var) bool {
	if v.Pkg() == nil || v.Parent() == v.Pkg().Scope() {
		return false
	}
	return v.Pos() < r.at.closure.Pos() || v.Pos() > r.at.closure.End()
}
