package transaction_test

import (
	"fmt"
	"slices"
	"strings"
)

// wrong looks for what must never be.
func (w *world) wrong(g *global) string {
	var written, shown uint32
	for _, l := range g.locals {
		if l == nil {
			continue
		}
		written |= l.written
		shown |= l.shown
		w.longest = max(w.longest, l.seconds)
		if l.seconds > w.seconds {
			return fmt.Sprintf("it goes on after %d s", w.seconds)
		}
	}
	for i := range w.clients {
		switch answer := g.caller(w, i).answer; {
		case answer == "" || answer == "?":
		case answer[0] == '!':
			for _, p := range w.writers {
				if p.bit&written != 0 && w.isPartOf(p, w.clients[i].root) {
					return fmt.Sprintf("%s failed with %q, and %s has written", w.clients[i].root.name, answer, p.name)
				}
			}
		default:
			if missing := w.promises[i] &^ shown; missing != 0 {
				return fmt.Sprintf("%s succeeded, and who reads does not see all it wrote: %s", w.clients[i].root.name, w.names(missing))
			}
		}
	}
	return ""
}

func (w *world) isPartOf(p, root *program) bool {
	if p == root {
		return true
	}
	for _, g := range root.calls {
		for _, c := range g.calls {
			if w.isPartOf(p, c) {
				return true
			}
		}
	}
	return false
}

func (w *world) names(mask uint32) string {
	var names []string
	for _, p := range w.writers {
		if p.bit&mask != 0 {
			names = append(names, p.name)
		}
	}
	return strings.Join(names, " ")
}

// wrongAtEnd looks at a world where nothing is left to do.
func (w *world) wrongAtEnd(g *global) string {
	lists := serial{}
	for _, l := range g.locals {
		if l == nil {
			continue
		}
		if l.leftovers != "" {
			return fmt.Sprintf("all has ended, and partition %d has left: %s", l.partition, l.leftovers)
		}
		for i, on := range w.objectsOf(l.partition) {
			if l.lists[i] != "" {
				lists[on] = l.lists[i]
			}
		}
	}
	if len(g.network) > 0 {
		return fmt.Sprintf("all has ended, and %s never came", w.describe(g.network[0]))
	}
	answers := make([]string, len(w.clients))
	for i, c := range w.clients {
		answers[i] = g.caller(w, i).answer
		if answers[i] == "" {
			return c.root.name + " has no answer"
		}
	}
	if !w.explained(g, lists, answers, serial{}, 0) {
		return fmt.Sprintf("no order of the transactions explains the lists %v and the answers %q (after: %v)", lists, answers, g.after[:len(answers)])
	}
	return ""
}

// explained reports whether the transactions that are not done yet, one after the other, lead
// to the lists and the answers. One whose answer is not known may have happened or not.
func (w *world) explained(g *global, lists serial, answers []string, now serial, done uint8) bool {
	if int(done) == 1<<len(answers)-1 {
		return slices.Equal(linesOf(now), linesOf(lists))
	}
	for i, c := range w.clients {
		if done&(1<<i) != 0 || g.after[i]&^done != 0 {
			continue
		}
		outcome, after := c.root.run(now)
		if (answers[i] == outcome || answers[i] == "?") && w.explained(g, lists, answers, after, done|1<<i) {
			return true
		}
		if answers[i] == "?" && w.explained(g, lists, answers, now, done|1<<i) {
			return true
		}
	}
	return false
}

func linesOf(s serial) (lines []string) {
	for object, list := range s {
		if list != "" {
			lines = append(lines, object+": "+list)
		}
	}
	slices.Sort(lines)
	return lines
}
