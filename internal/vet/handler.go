package vet

import (
	"go/ast"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
)

// actorPath is the package that handlers are written with.
const actorPath = "github.com/perdure/perdure/actor"

// mode is how the code at hand runs, as far as rules differ by it.
type mode uint8

const (
	modeNone mode = iota
	// modeDurable is DURABLE and RUN: journaled and replayed.
	modeDurable
	// modeTransaction may run several times, of which one counts.
	modeTransaction
	// modeRead changes nothing and is not repeated: no rule is for it.
	modeRead
)

func (m mode) String() string {
	switch m {
	case modeDurable:
		return "DURABLE"
	case modeTransaction:
		return "TRANSACTION"
	case modeRead:
		return "READ"
	}
	return "no handler"
}

// modesFact says of a generated handler interface in which mode each of its methods runs.
type modesFact struct{ Modes map[string]mode }

// AFact marks it as a fact.
func (*modesFact) AFact() {}

func (f *modesFact) String() string {
	parts := make([]string, 0, len(f.Modes))
	for _, name := range sortedKeys(f.Modes) {
		parts = append(parts, name+" "+f.Modes[name].String())
	}
	return strings.Join(parts, ", ")
}

// exportModes reads the descriptors of a generated package: a literal of actor.MethodDesc has
// the mode, and its Handle names interface and method.
func (r *reader) exportModes() {
	found := map[*types.TypeName]map[string]mode{}
	for _, file := range r.pass.Files {
		if !ast.IsGenerated(file) {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok || !named(r.pass.TypesInfo.TypeOf(literal), actorPath, "MethodDesc") {
				return true
			}
			m, iface, method := r.descriptor(literal)
			if iface != nil && m != modeNone {
				if found[iface] == nil {
					found[iface] = map[string]mode{}
				}
				found[iface][method] = m
			}
			return false
		})
	}
	for iface, modes := range found {
		r.pass.ExportObjectFact(iface, &modesFact{modes})
	}
}

func (r *reader) descriptor(literal *ast.CompositeLit) (m mode, iface *types.TypeName, method string) {
	for _, element := range literal.Elts {
		field, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		name, _ := field.Key.(*ast.Ident)
		switch {
		case name == nil:
		case name.Name == "Mode":
			if selector, ok := field.Value.(*ast.SelectorExpr); ok {
				m = modeOfConstant(selector.Sel.Name)
			}
		case name.Name == "Handle":
			ast.Inspect(field.Value, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				assertion, ok := selector.X.(*ast.TypeAssertExpr)
				if !ok || assertion.Type == nil {
					return true
				}
				if t, ok := types.Unalias(r.pass.TypesInfo.TypeOf(assertion.Type)).(*types.Named); ok && types.IsInterface(t) {
					iface, method = t.Obj(), selector.Sel.Name
				}
				return true
			})
		}
	}
	return m, iface, method
}

func modeOfConstant(name string) mode {
	switch name {
	case "ModeDurable", "ModeRun":
		return modeDurable
	case "ModeTransaction":
		return modeTransaction
	case "ModeRead":
		return modeRead
	}
	return modeNone
}

// roots are the handlers of the package, by what implements a handler interface.
func (r *reader) roots() map[*types.Func]mode {
	roots := map[*types.Func]mode{}
	for _, imported := range append(r.pass.Pkg.Imports(), r.pass.Pkg) {
		scope := imported.Scope()
		for _, name := range scope.Names() {
			iface, ok := scope.Lookup(name).(*types.TypeName)
			if !ok || iface.IsAlias() || !types.IsInterface(iface.Type()) {
				continue
			}
			var fact modesFact
			if !r.pass.ImportObjectFact(iface, &fact) {
				continue
			}
			r.implementers(iface, &fact, roots)
		}
	}
	return roots
}

func (r *reader) implementers(iface *types.TypeName, fact *modesFact, roots map[*types.Func]mode) {
	underlying, ok := iface.Type().Underlying().(*types.Interface)
	if !ok {
		return
	}
	scope := r.pass.Pkg.Scope()
	for _, name := range scope.Names() {
		candidate, ok := scope.Lookup(name).(*types.TypeName)
		if !ok || candidate.IsAlias() || types.IsInterface(candidate.Type()) {
			continue
		}
		pointer := types.NewPointer(candidate.Type())
		if !types.Implements(pointer, underlying) {
			continue
		}
		r.handlerTypes[candidate] = true
		methods := types.NewMethodSet(pointer)
		for method, m := range fact.Modes {
			selection := methods.Lookup(r.pass.Pkg, method)
			if selection == nil {
				continue
			}
			if f, ok := selection.Obj().(*types.Func); ok {
				roots[f.Origin()] = m
			}
		}
	}
}

// modeOfSignature is what a function's parameters say: the mode of the first that is the context
// of a handler.
func (r *reader) modeOfSignature(signature *types.Signature) mode {
	for parameter := range signature.Params().Variables() {
		if m := r.modeOfContext(parameter.Type()); m != modeNone {
			return m
		}
	}
	return modeNone
}

// modeOfContext is the mode that a context type stands for, by its name: generated ones end in
// the mode.
func (r *reader) modeOfContext(t types.Type) mode {
	// A library may name its context by an alias of a type in an internal package.
	for alias, ok := t.(*types.Alias); ok; alias, ok = t.(*types.Alias) {
		if extra.contexts[fullName(alias.Obj())] {
			return modeDurable
		}
		t = alias.Rhs()
	}
	n, ok := t.(*types.Named)
	if !ok || n.Obj().Pkg() == nil {
		return modeNone
	}
	if extra.contexts[fullName(n.Obj())] {
		return modeDurable
	}
	if !r.isContext(n) {
		return modeNone
	}
	switch name := n.Obj().Name(); {
	case strings.HasSuffix(name, "TxContext"):
		return modeTransaction
	case strings.HasSuffix(name, "ReadContext"):
		return modeRead
	}
	return modeDurable
}

// fullName is import/path.Name.
func fullName(name *types.TypeName) string {
	if name.Pkg() == nil {
		return name.Name()
	}
	return name.Pkg().Path() + "." + name.Name()
}

// isContext: it is actor.Context, or an interface that embeds it. That is sealed, so its unexported
// method is the mark.
func (r *reader) isContext(t types.Type) bool {
	iface, ok := t.Underlying().(*types.Interface)
	if !ok {
		return false
	}
	for method := range iface.Methods() {
		if method.Name() == "handler" && method.Pkg() != nil && method.Pkg().Path() == actorPath {
			return true
		}
	}
	return false
}

// contextValue: t is a handler's context, of whatever library.
func (r *reader) contextValue(t types.Type) bool { return t != nil && r.modeOfContext(t) != modeNone }

var _ analysis.Fact = (*modesFact)(nil)
