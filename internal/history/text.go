package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// They bound what is printed of a list, of a transaction and of a circle.
	shownValues = 10
	shownOps    = 12
	shownSteps  = 20
)

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// name of a transaction in texts.
func (c *checker) name(txn int32) string {
	if txn == final {
		return "the final read"
	}
	return fmt.Sprintf("T%d", c.txns[txn].ID)
}

// values prints a list; of a long one its end, where what matters usually is.
func values(list []int64) string {
	if len(list) <= shownValues {
		return fmt.Sprint(list)
	}
	return fmt.Sprintf("[… %s (%d values)", strings.TrimPrefix(fmt.Sprint(list[len(list)-shownValues:]), "["), len(list))
}

// reading tells who read what.
func (c *checker) reading(key int32, list []int64, reader int32) string {
	return fmt.Sprintf("%s of %s %s", c.readOf(reader), c.lists[key].name, values(list))
}

func (c *checker) readOf(reader int32) string {
	if reader == final {
		return "the final read"
	}
	return c.name(reader) + "'s read"
}

// describe prints a transaction with its operations; with keys, and if it has many, those on
// the keys.
func (c *checker) describe(txn int32, keys ...string) string {
	t := &c.txns[txn]
	ops := t.Ops
	if len(ops) > shownOps && len(keys) > 0 {
		ops = slices.DeleteFunc(slices.Clone(ops), func(op Op) bool { return !slices.Contains(keys, op.Key) })
	}
	ops = ops[:min(len(ops), shownOps)]
	var words []string
	for _, op := range ops {
		switch {
		case op.Append:
			words = append(words, fmt.Sprintf("append %s %d", op.Key, op.Value))
		case op.Read == nil:
			words = append(words, fmt.Sprintf("read %s ?", op.Key))
		default:
			words = append(words, fmt.Sprintf("read %s %s", op.Key, values(op.Read)))
		}
	}
	if more := len(t.Ops) - len(ops); more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	until := time.Duration(t.Ended).String()
	if t.Outcome == Unknown {
		until = "no answer"
	}
	return fmt.Sprintf("%s (process %d, %s, %s to %s): %s", c.name(txn), t.Process, t.Outcome, time.Duration(t.Began), until, strings.Join(words, "; "))
}

// why says what shows an edge.
func (g *graph) why(s step) string {
	from, to := g.name(s.from), g.name(s.to)
	if s.edge == none {
		gap := time.Duration(g.txns[s.to].Began - g.txns[s.from].Ended)
		return fmt.Sprintf("%s ended %s before %s began", from, gap, to)
	}
	e := &g.edges[s.edge]
	name := g.lists[e.key].name
	switch e.label {
	case ww:
		if e.unread {
			return fmt.Sprintf("%s appended %d to %s, the last that was read, and %s appended %d, which was not", from, e.first, name, to, e.second)
		}
		return fmt.Sprintf("%s appended %d to %s right before %s appended %d", from, e.first, name, to, e.second)
	case wr:
		return fmt.Sprintf("%s read %s with %s, of which %s appended %d", to, name, plural(int(e.length), "value", "values"), from, e.first)
	default:
		next := "the next"
		if e.unread {
			next = "which nobody read"
		}
		return fmt.Sprintf("%s read %s with %s, without %d, %s, appended by %s", from, name, plural(int(e.length), "value", "values"), e.second, next, to)
	}
}
