package vet

import (
	"go/ast"
	"go/types"
	"strings"
)

// readCopies finds copies that State.Get and Table.Get returned, were changed, and went nowhere:
// the change is lost. It reads whole functions of any mode but READ, where a copy may serve as
// scratch paper. It is no flow analysis: a copy that is given to anything counts as kept.
func (r *reader) readCopies() {
	for f, d := range r.decls {
		if m := r.modeOfSignature(f.Signature()); m == modeNone || m == modeRead {
			continue
		}
		c := copies{r: r, got: map[*types.Var]*ast.CallExpr{}, changed: map[*types.Var]bool{}, kept: map[*types.Var]bool{}}
		ast.Inspect(d.Body, c.find)
		ast.Inspect(d.Body, c.follow)
		for v, call := range c.got {
			if c.changed[v] && !c.kept[v] {
				r.at = scope{}
				r.report(ruleGetSet, call.Pos(), "%s is a copy, which is changed and never given to Set or Put: the change is lost", v.Name())
			}
		}
	}
}

type copies struct {
	r *reader
	// got are the variables that hold a copy, and the Get that made it.
	got     map[*types.Var]*ast.CallExpr
	changed map[*types.Var]bool
	kept    map[*types.Var]bool
}

// find collects the variables; a change of what Get returned, without one, is reported at once.
func (c *copies) find(n ast.Node) bool {
	assign, ok := n.(*ast.AssignStmt)
	if !ok {
		return true
	}
	for _, to := range assign.Lhs {
		if call := c.getBehind(to); call != nil {
			c.r.at = scope{}
			c.r.report(ruleGetSet, call.Pos(), "what Get returns is a copy: the change is lost; keep it in a variable and Set it, or use Update")
		}
	}
	if len(assign.Rhs) == 1 {
		if call, ok := ast.Unparen(assign.Rhs[0]).(*ast.CallExpr); ok && c.isGet(call) {
			if name, ok := assign.Lhs[0].(*ast.Ident); ok {
				if v := c.variable(name); v != nil {
					if _, again := c.got[v]; !again {
						c.got[v] = call
					}
				}
			}
		}
	}
	return true
}

// getBehind is the Get that an assignment's left side goes through: ctx.State().Get().Field.
func (c *copies) getBehind(e ast.Expr) *ast.CallExpr {
	for {
		switch x := ast.Unparen(e).(type) {
		case *ast.CallExpr:
			if c.isGet(x) {
				return x
			}
			return nil
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// isGet: it is the Get of a State or a Table.
func (c *copies) isGet(call *ast.CallExpr) bool {
	selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "Get" {
		return false
	}
	t := c.r.pass.TypesInfo.TypeOf(selector.X)
	return named(t, actorPath, "State") || named(t, actorPath, "Table")
}

func (c *copies) variable(name *ast.Ident) *types.Var {
	v, _ := c.r.pass.TypesInfo.ObjectOf(name).(*types.Var)
	return v
}

// follow sees what becomes of the copies.
func (c *copies) follow(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.AssignStmt:
		for _, to := range n.Lhs {
			if _, whole := ast.Unparen(to).(*ast.Ident); !whole {
				c.change(to)
			}
		}
		for _, from := range n.Rhs {
			c.keep(from)
		}
	case *ast.ValueSpec:
		for _, from := range n.Values {
			c.keep(from)
		}
	case *ast.IncDecStmt:
		if _, whole := ast.Unparen(n.X).(*ast.Ident); !whole {
			c.change(n.X)
		}
	case *ast.CallExpr:
		c.call(n)
	case *ast.ReturnStmt:
		for _, result := range n.Results {
			c.keep(result)
		}
	case *ast.CompositeLit:
		for _, element := range n.Elts {
			if field, ok := element.(*ast.KeyValueExpr); ok {
				element = field.Value
			}
			c.keep(element)
		}
	case *ast.SendStmt:
		c.keep(n.Value)
	case *ast.UnaryExpr:
		c.keep(n.X)
	case *ast.RangeStmt:
		c.keep(n.X)
	}
	return true
}

// call: a copy given to anything is kept; a setter or a builtin that changes it in place is a
// change.
func (c *copies) call(call *ast.CallExpr) {
	if name, ok := ast.Unparen(call.Fun).(*ast.Ident); ok {
		if _, builtin := c.r.pass.TypesInfo.Uses[name].(*types.Builtin); builtin {
			if (name.Name == "delete" || name.Name == "clear" || name.Name == "copy") && len(call.Args) > 0 {
				c.change(call.Args[0])
			}
			if name.Name == "append" {
				for _, argument := range call.Args {
					c.keep(argument)
				}
			}
			return
		}
	}
	if selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		if name := selector.Sel.Name; strings.HasPrefix(name, "Set") || strings.HasPrefix(name, "Clear") {
			c.change(selector.X)
		}
	}
	for _, argument := range call.Args {
		c.keep(argument)
	}
}

func (c *copies) change(e ast.Expr) {
	if name := c.r.rootOf(e); name != nil {
		if v := c.variable(name); v != nil {
			c.changed[v] = true
		}
	}
}

// keep: the copy itself, not a field of it, goes somewhere. (st.Items handed on is a look at
// it, as a rule.)
func (c *copies) keep(e ast.Expr) {
	if name, ok := ast.Unparen(e).(*ast.Ident); ok {
		if v := c.variable(name); v != nil {
			c.kept[v] = true
		}
	}
}
