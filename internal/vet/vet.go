package vet

import (
	"fmt"
	"go/token"
	"reflect"

	"golang.org/x/tools/go/analysis"
)

// Analyzers are all rules, for a checker such as multichecker.Main. They may run concurrently.
func Analyzers() []*analysis.Analyzer {
	// handlers reports nothing; it is here for its flags.
	all := []*analysis.Analyzer{handlers}
	for _, r := range rules {
		all = append(all, r.analyzer())
	}
	return all
}

// rule names one kind of finding.
type rule string

// The rules; rules has what they are for.
const (
	ruleClock     rule = "clock"
	ruleRandom    rule = "random"
	ruleGoroutine rule = "goroutine"
	ruleChannel   rule = "channel"
	ruleMapRange  rule = "maprange"
	ruleGlobal    rule = "global"
	ruleOuterCtx  rule = "outerctx"
	ruleGetSet    rule = "getset"
	ruleIO        rule = "io"
	ruleMode      rule = "mode"
)

var rules = []ruleDoc{
	{ruleClock, "find clocks in DURABLE handlers\n\nA replay reads another time than the first attempt did. Use ctx.Now, actor.Sleep and actor.After."},
	{ruleRandom, "find chance in DURABLE handlers\n\nA replay draws other numbers. Use ctx.Rand and ctx.UUID."},
	{ruleGoroutine, "find goroutines started by handlers\n\nA step must be made on the handler's own goroutine. Use the Async methods of stubs, actor.RunAsync and actor.All."},
	{ruleChannel, "find select and channel operations in DURABLE handlers\n\nWhich is ready first differs between replays. Use futures, actor.Select and actor.Race."},
	{ruleMapRange, "find steps inside a range over a map in DURABLE handlers\n\nThe order differs between replays. Range over sorted keys."},
	{ruleGlobal, "find handlers that write variables of a package, or fields of their receiver\n\nThey are written by each replay and each try, by all keys at once, and nothing takes that back. Use the object's state."},
	{ruleOuterCtx, "find steps inside the closures of Run\n\nA closure is run at any time and cannot make steps. Use the closure's own ctx, and make steps before or after it."},
	{ruleGetSet, "find copies of state that are changed and not Set\n\nGet returns a copy: without Set or Put the change is lost."},
	{ruleIO, "find input and output outside of Run\n\nIn a DURABLE handler it happens again in each replay; in a TRANSACTION nothing takes it back."},
	{ruleMode, "find steps that a TRANSACTION refuses\n\nRun, Sleep and other waits need mode: DURABLE."},
}

type ruleDoc struct {
	name rule
	doc  string
}

func (r ruleDoc) analyzer() *analysis.Analyzer {
	return &analysis.Analyzer{
		Name:     string(r.name),
		Doc:      r.doc,
		Requires: []*analysis.Analyzer{handlers},
		Run: func(pass *analysis.Pass) (any, error) {
			found, _ := pass.ResultOf[handlers].([]finding)
			for _, f := range found {
				if f.rule == r.name {
					pass.Report(analysis.Diagnostic{Pos: f.pos, Category: string(r.name), Message: f.message})
				}
			}
			return nil, nil
		},
	}
}

// finding is what one rule has to say of one place.
type finding struct {
	rule    rule
	pos     token.Pos
	message string
}

// handlers reads a package once for all rules.
var handlers = &analysis.Analyzer{
	Name:       "handlers",
	Doc:        "find handlers of perdure services and read what they do; the rules report it",
	FactTypes:  []analysis.Fact{new(modesFact)},
	ResultType: reflect.TypeFor[[]finding](),
	Run: func(pass *analysis.Pass) (any, error) {
		p := newReader(pass)
		if p == nil {
			return []finding(nil), nil
		}
		p.exportModes()
		p.readHandlers()
		p.readCopies()
		return p.kept(), nil
	},
}

func init() {
	handlers.Flags.Func("contexts", "types (import/path.Name, comma separated) to treat as the context of a DURABLE handler, beside the generated ones", func(list string) error {
		return extra.addContexts(list)
	})
	handlers.Flags.Func("runs", "functions (import/path.Name, comma separated) whose closures run outside of the journal, beside actor.Run, RunAsync and Do", func(list string) error {
		return extra.addRuns(list)
	})
}

// extra is what the command line adds; it is written while flags are parsed, and only read
// afterwards.
var extra vocabulary

// vocabulary names contexts and Run functions of other packages, as import/path.Name.
type vocabulary struct {
	contexts map[string]bool
	runs     map[string]bool
}

func (v *vocabulary) addContexts(list string) error { return addNames(&v.contexts, list) }
func (v *vocabulary) addRuns(list string) error     { return addNames(&v.runs, list) }

func addNames(into *map[string]bool, list string) error {
	if *into == nil {
		*into = map[string]bool{}
	}
	for _, name := range splitList(list) {
		if !qualified(name) {
			return fmt.Errorf("%q is not of the form import/path.Name", name)
		}
		(*into)[name] = true
	}
	return nil
}
