package archtest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// violations of the rules, each with its reason.
func violations(g graph, rules []rule) []string {
	var found []string
	for _, r := range rules {
		for _, p := range g.sorted() {
			if len(r.packages) > 0 && !under(p.path, r.packages) || under(p.path, r.except) {
				continue
			}
			bad := func(imported string) bool {
				return under(imported, r.never) && !under(imported, r.butFor)
			}
			seen := map[string]bool{}
			report := func(imported, way string) {
				if !bad(imported) || seen[imported] {
					return
				}
				seen[imported] = true
				found = append(found, fmt.Sprintf("%s\n\t%s\n\tbecause %s", r.name, way, r.why))
			}
			for _, imported := range p.imports {
				report(imported, p.path+" → "+imported)
			}
			if r.tests {
				for _, imported := range p.testImports {
					report(imported, p.path+" (tests) → "+imported)
				}
			}
			if r.reach {
				for _, imported := range p.deps {
					// What other modules do among themselves is told by one arrow.
					if bad(imported) && !reachedThrough(g, imported, seen) {
						report(imported, g.chain(p.path, imported))
					}
				}
			}
		}
	}
	return found
}

// reachedThrough reports whether a package of the same module was reported already: badger
// brings nine of its own.
func reachedThrough(g graph, path string, seen map[string]bool) bool {
	if g.isLocal(path) || isStandard(path) {
		return false
	}
	parts := strings.SplitN(path, "/", 4)
	prefix := strings.Join(parts[:min(len(parts), 3)], "/")
	for other := range seen {
		if strings.HasPrefix(other, prefix) {
			return true
		}
	}
	return false
}

func TestForbiddenImports(t *testing.T) {
	for _, violation := range violations(load(t), rules) {
		t.Error(violation)
	}
}

// Rules that name a package nobody has would check nothing after a rename. Packages that the
// architecture has and the tree does not have yet are listed here, so that the list empties.
func TestRulesNamePackagesThatExist(t *testing.T) {
	planned := []string{"cluster/placement", "internal/transaction", "internal/webui"}
	g := load(t)
	exists := func(pattern string) bool {
		pattern = strings.TrimPrefix(pattern, "=")
		for path := range g {
			if under(path, []string{pattern}) {
				return true
			}
		}
		return slices.Contains(planned, pattern)
	}
	for _, r := range rules {
		for _, pattern := range slices.Concat(r.packages, r.except) {
			if !exists(pattern) {
				t.Errorf("rule %q names %s, which has no packages: it was moved or removed; correct the rule in rules_test.go", r.name, pattern)
			}
		}
	}
	for _, l := range layers {
		for _, entry := range l.entries {
			if !exists(entry) {
				t.Errorf("layer %q names %s, which has no packages: it was moved or removed; correct the layers in rules_test.go", l.name, entry)
			}
		}
	}
}

// upward finds imports that do not point down.
func upward(g graph) []string {
	var found []string
	for _, p := range g.sorted() {
		from, fromEntry := storey(p.path)
		if from < 0 {
			found = append(found, fmt.Sprintf("%s is in no layer: give it a place in the layers of rules_test.go", p.path))
			continue
		}
		for _, imported := range p.imports {
			if !g.isLocal(imported) {
				continue
			}
			to, toEntry := storey(imported)
			if to < 0 || to < from || to == from && fromEntry == toEntry {
				continue
			}
			found = append(found, fmt.Sprintf("%s (layer %d, %s) → %s (layer %d, %s)\n\tbecause arrows point down only: what is below must be understood, tested and replaced without what is above. Take an interface from the lower side, or move the shared word down",
				p.path, from+1, layers[from].name, imported, to+1, layers[to].name))
		}
	}
	return found
}

func TestArrowsPointDown(t *testing.T) {
	for _, arrow := range upward(load(t)) {
		t.Error(arrow)
	}
}

// imports.txt has this module's packages and other modules' packages; the standard library
// is left out, where it matters a rule speaks of it.
func TestImportGraph(t *testing.T) {
	g := load(t)
	var out strings.Builder
	fmt.Fprintf(&out, "# Who imports whom, without tests and the standard library. Written by: %s\n", updateHint)
	for i, l := range layers {
		fmt.Fprintf(&out, "\n# %d. %s\n", i+1, l.name)
		for _, p := range g.sorted() {
			if number, _ := storey(p.path); number != i {
				continue
			}
			fmt.Fprintf(&out, "%s\n", p.path)
			var ours, theirs []string
			for _, imported := range p.imports {
				if g.isLocal(imported) {
					ours = append(ours, imported)
				} else if !isStandard(imported) {
					theirs = append(theirs, imported)
				}
			}
			for _, imported := range append(ours, theirs...) {
				fmt.Fprintf(&out, "\t%s\n", imported)
			}
		}
	}
	compare(t, filepath.Join(root(), "internal", "archtest", "imports.txt"), out.String(), "the import graph")
}
