package vet

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
)

// reader reads one package.
type reader struct {
	pass  *analysis.Pass
	decls map[*types.Func]*ast.FuncDecl
	// seen are the functions already read in a mode.
	seen  map[visit]bool
	found []finding
	// handlerTypes are the types of the package that have handlers.
	handlerTypes map[*types.TypeName]bool
	// steps says of a function of this package whether it makes a step, once that was asked.
	steps map[*types.Func]bool
	// at is where the reader is.
	at scope
}

// visit is one way to read a function: shared says that its receiver is the one that a handler was called on.
type visit struct {
	f      *types.Func
	m      mode
	shared bool
}

// scope is the function being read, how it runs, and by which way it was come to.
type scope struct {
	mode mode
	// path are the functions from the handler down to this one.
	path []string
	// closure is the closure of a Run around the node at hand, nil outside of one, and run the
	// function that runs it.
	closure *ast.FuncLit
	run     string
	// receiver is the receiver of this function if all objects and attempts share it, nil if they do not, or
	// nobody knows.
	receiver *types.Var
	// once: the node at hand is run once in the process.
	once bool
}

// newReader is nil for a package that cannot have handlers.
func newReader(pass *analysis.Pass) *reader {
	r := &reader{pass: pass, decls: map[*types.Func]*ast.FuncDecl{}, seen: map[visit]bool{}, steps: map[*types.Func]bool{}, handlerTypes: map[*types.TypeName]bool{}}
	if pass.Pkg.Path() == actorPath {
		return nil
	}
	interested := false
	for _, imported := range pass.Pkg.Imports() {
		if imported.Path() == actorPath || extra.knows(imported.Path()) {
			interested = true
		}
		// A package that uses only a generated one names no type of actor.
		for _, below := range imported.Imports() {
			interested = interested || below.Path() == actorPath
		}
	}
	if !interested {
		return nil
	}
	for _, file := range pass.Files {
		for _, declaration := range file.Decls {
			if d, ok := declaration.(*ast.FuncDecl); ok && d.Body != nil {
				if f, ok := pass.TypesInfo.Defs[d.Name].(*types.Func); ok && !ast.IsGenerated(file) {
					r.decls[f] = d
				}
			}
		}
	}
	return r
}

func (v *vocabulary) knows(path string) bool {
	for name := range v.contexts {
		if strings.HasPrefix(name, path+".") {
			return true
		}
	}
	return false
}

// readHandlers reads all handlers, then what else has a handler's context among its parameters and
// was not come to from one.
func (r *reader) readHandlers() {
	roots := r.roots()
	inOrder := slices.SortedFunc(maps.Keys(r.decls), func(a, b *types.Func) int { return int(a.Pos() - b.Pos()) })
	for _, f := range inOrder {
		if m := roots[f]; m != modeNone {
			r.readFunction(visit{f, m, true}, nil)
		}
	}
	for _, f := range inOrder {
		if slices.ContainsFunc([]mode{modeDurable, modeTransaction, modeRead}, func(m mode) bool { return r.wasRead(visit{f, m, false}) }) {
			continue
		}
		if m := r.modeOfSignature(f.Signature()); m != modeNone {
			r.readFunction(visit{f, m, r.handlerTypes[receiverType(f)]}, nil)
		}
	}
}

// wasRead: the function was read so, or with one rule more.
func (r *reader) wasRead(v visit) bool { return r.seen[v] || r.seen[visit{v.f, v.m, true}] }

func (r *reader) readFunction(v visit, path []string) {
	d := r.decls[v.f]
	if d == nil || v.m == modeNone || r.wasRead(v) {
		return
	}
	r.seen[v] = true
	if v.m == modeRead {
		return
	}
	outer := r.at
	r.at = scope{mode: v.m, path: append(slices.Clip(path), funcName(v.f))}
	if v.shared {
		r.at.receiver = r.sharedReceiver(d)
	}
	ast.Walk(visitor{r}, d.Body)
	r.at = outer
}

// visitor reads nodes in source order.
type visitor struct{ r *reader }

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	if n == nil || v.r.read(n) {
		return v
	}
	return nil
}

// read applies the rules to a node and says whether to go on inside.
func (r *reader) read(n ast.Node) bool {
	if r.at.closure != nil {
		return r.readInClosure(n)
	}
	switch n := n.(type) {
	case *ast.CallExpr:
		return r.readCall(n)
	case *ast.GoStmt:
		r.report(ruleGoroutine, n.Pos(), "go starts a goroutine in a %s handler: %s", r.at.mode, goroutineAdvice(r.at.mode))
		return false
	case *ast.SelectStmt:
		if r.at.mode == modeDurable {
			r.report(ruleChannel, n.Pos(), "select in a DURABLE handler: which case is ready differs between replays; use futures with actor.Select or actor.Race")
			return false
		}
	case *ast.SendStmt:
		if r.at.mode == modeDurable {
			r.report(ruleChannel, n.Pos(), "send on a channel in a DURABLE handler: it is sent again by each replay; return a value, or use a call or a promise")
		}
	case *ast.UnaryExpr:
		if n.Op == token.ARROW && r.at.mode == modeDurable {
			r.report(ruleChannel, n.Pos(), "%s", receiveAdvice(r, n))
		}
	case *ast.RangeStmt:
		r.readRange(n)
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, to := range n.Lhs {
				r.readWrite(to, false)
			}
		}
	case *ast.IncDecStmt:
		r.readWrite(n.X, false)
	case *ast.SelectorExpr:
		r.readValue(n)
	}
	return true
}

func goroutineAdvice(m mode) string {
	if m == modeTransaction {
		return "it outlives the try, and nothing takes back what it does; for calls side by side use the Async methods of stubs"
	}
	return "steps belong on the handler's own; use actor.RunAsync, the Async methods of stubs, and actor.All"
}

func receiveAdvice(r *reader, n *ast.UnaryExpr) string {
	if call, ok := ast.Unparen(n.X).(*ast.CallExpr); ok {
		if f := r.callee(call); f != nil && f.Name() == "Done" {
			return "a wait for Done in a DURABLE handler: that is the end of the attempt, not of the invocation; a cancelled invocation hears of it by actor.ErrCanceled from its next wait"
		}
	}
	return "receive from a channel in a DURABLE handler: what arrives is not in the journal; use futures, an Inbox, a promise or an awakeable"
}

// readCall applies the rules about what is called, and follows calls within the package.
func (r *reader) readCall(call *ast.CallExpr) bool {
	f := r.callee(call)
	if f == nil {
		r.readBuiltin(call)
		return true
	}
	if r.readOnce(f, call) {
		return false
	}
	if closure := r.closureOf(f, call); closure != nil {
		r.readClosure(f, call, closure)
		return false
	}
	r.readModeStep(f, call)
	r.readCallee(f, call.Pos())
	if r.decls[f.Origin()] != nil {
		m := r.at.mode
		// A function with a context of its own is read in the mode of that.
		if own := r.modeOfSignature(f.Signature()); own == modeRead {
			m = own
		}
		r.readFunction(visit{f.Origin(), m, r.onReceiver(call)}, r.at.path)
	}
	return true
}

// readValue finds forbidden functions that are passed on, not called: time.Now as a value.
func (r *reader) readValue(selector *ast.SelectorExpr) {
	if f, ok := r.pass.TypesInfo.Uses[selector.Sel].(*types.Func); ok {
		r.readCallee(f.Origin(), selector.Pos())
	}
}

// readRange finds steps in the order of a map, and channels.
func (r *reader) readRange(n *ast.RangeStmt) {
	if r.at.mode != modeDurable {
		return
	}
	t := r.pass.TypesInfo.TypeOf(n.X)
	if t == nil {
		return
	}
	switch t.Underlying().(type) {
	case *types.Chan:
		r.report(ruleChannel, n.Pos(), "range over a channel in a DURABLE handler: what arrives is not in the journal; use futures, an Inbox, a promise or an awakeable")
		return
	case *types.Map:
	default:
		if !r.ofMap(n.X) {
			return
		}
	}
	if step := r.firstStep(n.Body); step != nil {
		r.report(ruleMapRange, n.Pos(), "steps in the order of a map (line %d): it differs between replays; range over slices.Sorted(maps.Keys(…))",
			r.pass.Fset.Position(step.Pos()).Line)
	}
}

// firstStep is the first call below a node that is recorded in the journal.
func (r *reader) firstStep(n ast.Node) ast.Node {
	var step ast.Node
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && step == nil && r.isStep(call) {
			step = call
		}
		return step == nil
	})
	return step
}

// harmless are methods of contexts, states and tables that leave no trace in the journal.
var harmless = map[string]bool{
	"Key": true, "State": true, "Get": true, "Len": true, "From": true, "Now": true, "Logger": true, "Rand": true, "UUID": true,
	"InvocationID": true, "Attempt": true, "Err": true, "Done": true, "Value": true, "Deadline": true, "ID": true,
}

// isStep: the call is made with a handler's context, and is not one of those that only look. A
// method called on something that a context gave (ctx.State().Set) is one too, and so is a function
// of this package that makes one.
func (r *reader) isStep(call *ast.CallExpr) bool {
	f := r.callee(call)
	if f == nil {
		return false
	}
	if f.Signature().Recv() != nil && harmless[f.Name()] {
		return false
	}
	if selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok && f.Signature().Recv() != nil {
		if r.fromContext(selector.X) {
			return r.decls[f.Origin()] == nil || r.makesStep(f.Origin())
		}
	}
	for _, argument := range call.Args {
		if !r.contextValue(r.pass.TypesInfo.TypeOf(argument)) {
			continue
		}
		if r.decls[f.Origin()] != nil {
			return r.makesStep(f.Origin())
		}
		// A stub is made with a context, and is not a step: its methods are.
		return !returnsStub(f)
	}
	return false
}

// makesStep looks into a function of this package.
func (r *reader) makesStep(f *types.Func) bool {
	if known, ok := r.steps[f]; ok {
		return known
	}
	r.steps[f] = false // while it is looked at: recursion makes no step by itself
	r.steps[f] = r.firstStep(r.decls[f].Body) != nil
	return r.steps[f]
}

// returnsStub: the function only makes a reference (bank.Account(ctx, key)).
func returnsStub(f *types.Func) bool {
	results := f.Signature().Results()
	if results.Len() != 1 {
		return false
	}
	n, ok := types.Unalias(results.At(0).Type()).(*types.Named)
	return ok && strings.HasSuffix(n.Obj().Name(), "Stub")
}

// fromContext: the expression is a handler's context, or a chain of methods on one.
func (r *reader) fromContext(e ast.Expr) bool {
	for {
		e = ast.Unparen(e)
		if r.contextValue(r.pass.TypesInfo.TypeOf(e)) {
			return true
		}
		switch x := e.(type) {
		case *ast.CallExpr:
			e = x.Fun
		case *ast.SelectorExpr:
			e = x.X
		default:
			return false
		}
	}
}

// callee is the function or method that a call names, nil if it is a value.
func (r *reader) callee(call *ast.CallExpr) *types.Func {
	fun := ast.Unparen(call.Fun)
	switch x := fun.(type) {
	case *ast.IndexExpr:
		fun = x.X
	case *ast.IndexListExpr:
		fun = x.X
	}
	var name *ast.Ident
	switch x := fun.(type) {
	case *ast.Ident:
		name = x
	case *ast.SelectorExpr:
		name = x.Sel
	default:
		return nil
	}
	f, _ := r.pass.TypesInfo.Uses[name].(*types.Func)
	if f == nil {
		return nil
	}
	return f.Origin()
}

func (r *reader) report(rule rule, pos token.Pos, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if len(r.at.path) > 1 {
		message += " (" + strings.Join(r.at.path, " calls ") + ")"
	}
	for _, f := range r.found {
		if f.rule == rule && f.pos == pos {
			return
		}
	}
	r.found = append(r.found, finding{rule, pos, message})
}
