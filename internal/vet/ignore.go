package vet

import (
	"cmp"
	"go/types"
	"maps"
	"slices"
	"strings"
)

const ignoreMark = "//perdurevet:ignore"

// kept are the findings, in order, without those that a comment takes back. A comment without a
// rule or a reason takes nothing back and is reported itself.
func (r *reader) kept() []finding {
	type line struct {
		file string
		line int
		rule rule
	}
	ignored := map[line]bool{}
	said := map[line]bool{}
	for _, f := range r.found {
		at := r.pass.Fset.Position(f.pos)
		said[line{at.Filename, at.Line, f.rule}] = true
	}
	for _, file := range r.pass.Files {
		for _, group := range file.Comments {
			for _, comment := range group.List {
				rest, ok := strings.CutPrefix(comment.Text, ignoreMark)
				if !ok {
					continue
				}
				rest, _, _ = strings.Cut(rest, "//")
				words := strings.Fields(rest)
				if len(words) < 2 || !isRule(words[0]) {
					r.found = append(r.found, finding{ruleMode, comment.Pos(), ignoreMark + " needs a rule (" + ruleNames() + ") and a reason"})
					continue
				}
				at := r.pass.Fset.Position(comment.Pos())
				here := line{at.Filename, at.Line, rule(words[0])}
				if !said[here] {
					here.line++ // it stands above what it is about
				}
				ignored[here] = true
			}
		}
	}
	found := slices.DeleteFunc(r.found, func(f finding) bool {
		at := r.pass.Fset.Position(f.pos)
		return ignored[line{at.Filename, at.Line, f.rule}]
	})
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.pos, b.pos) })
	return found
}

func isRule(name string) bool {
	return slices.ContainsFunc(rules, func(r ruleDoc) bool { return string(r.name) == name })
}

func ruleNames() string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = string(r.name)
	}
	return strings.Join(names, ", ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func splitList(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' })
}

// qualified: it is import/path.Name.
func qualified(name string) bool {
	slash := strings.LastIndexByte(name, '/')
	dot := strings.LastIndexByte(name, '.')
	return dot > slash+1 && dot < len(name)-1
}

// funcName is a function as a reader of the report would call it: Orders.Run.
func funcName(f *types.Func) string {
	if receiver := receiverName(f); receiver != "" {
		return receiver + "." + f.Name()
	}
	return f.Name()
}
