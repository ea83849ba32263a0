package journal

import (
	"fmt"
	"strings"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Ended says how an entry has completed.
type Ended func(entry uint32) (done, failure bool, err error)

// Decided reports whether enough of a condition has completed to end the wait for it. changed is
// the entry that completed last, without which the condition was not decided; 0 if that is not
// known. It spares most looks at the other entries of a large condition.
func Decided(condition *recordv1.Condition, changed uint32, ended Ended) (bool, error) {
	done, _, err := judge(condition, changed, ended)
	return done, err
}

func judge(c *recordv1.Condition, changed uint32, ended Ended) (done, failure bool, err error) {
	kind := c.GetQuantifier()
	if kind == recordv1.Quantifier_QUANTIFIER_ENTRY {
		return judgeEntry(c.GetEntry(), ended)
	}
	waiting := false
	// From the right: what was asked for last is often what completes last, and one part that is
	// open is enough for most kinds. The leftmost of those that could decide does.
	for position := parts(c) - 1; position >= 0; position-- {
		entry, nested := part(c, position)
		if changed != 0 && nested == nil && entry != 0 && entry != changed &&
			(waiting || kind == recordv1.Quantifier_QUANTIFIER_FIRST || kind == recordv1.Quantifier_QUANTIFIER_TIMEOUT) {
			waiting = true // It did not decide before and does not now; if it is open changes nothing.
			continue
		}
		var was, failed bool
		if nested == nil {
			was, failed, err = judgeEntry(entry, ended)
		} else {
			was, failed, err = judge(nested, 0, ended)
		}
		switch {
		case err != nil:
			return false, false, err
		case !was && kind == recordv1.Quantifier_QUANTIFIER_SETTLED:
			return false, false, nil
		case !was:
			waiting = true
		case kind == recordv1.Quantifier_QUANTIFIER_TIMEOUT && position == 1:
			done, failure = true, true
		case kind == recordv1.Quantifier_QUANTIFIER_FIRST, kind == recordv1.Quantifier_QUANTIFIER_TIMEOUT,
			kind == recordv1.Quantifier_QUANTIFIER_ANY && !failed, kind == recordv1.Quantifier_QUANTIFIER_ALL && failed:
			done, failure = true, failed
		}
	}
	switch {
	case done:
		return true, failure, nil
	case waiting:
		return false, false, nil
	}
	return true, kind == recordv1.Quantifier_QUANTIFIER_ANY, nil
}

func judgeEntry(entry uint32, ended Ended) (done, failure bool, err error) {
	if entry == 0 {
		return true, true, nil
	}
	return ended(entry)
}

func parts(c *recordv1.Condition) int {
	if len(c.GetEntries()) > 0 {
		return len(c.GetEntries())
	}
	return len(c.GetParts())
}

// part is an entry, or a condition of its own.
func part(c *recordv1.Condition, position int) (entry uint32, nested *recordv1.Condition) {
	if len(c.GetEntries()) > 0 {
		return c.GetEntries()[position], nil
	}
	if of := c.GetParts()[position]; of.GetQuantifier() != recordv1.Quantifier_QUANTIFIER_ENTRY {
		return 0, of
	}
	return c.GetParts()[position].GetEntry(), nil
}

// DescribeCondition is a condition in words, such as "the first of (3, all of (4, 5))".
func DescribeCondition(c *recordv1.Condition) string {
	if c.GetQuantifier() == recordv1.Quantifier_QUANTIFIER_ENTRY {
		return fmt.Sprint(c.GetEntry())
	}
	words := map[recordv1.Quantifier]string{
		recordv1.Quantifier_QUANTIFIER_FIRST:   "the first of",
		recordv1.Quantifier_QUANTIFIER_SETTLED: "the end of",
		recordv1.Quantifier_QUANTIFIER_ANY:     "the first success of",
		recordv1.Quantifier_QUANTIFIER_ALL:     "all of",
		recordv1.Quantifier_QUANTIFIER_TIMEOUT: "one with a timeout of",
	}
	texts := make([]string, parts(c))
	for position := range texts {
		entry, nested := part(c, position)
		if nested != nil {
			texts[position] = DescribeCondition(nested)
		} else {
			texts[position] = fmt.Sprint(entry)
		}
	}
	return words[c.GetQuantifier()] + " (" + strings.Join(texts, ", ") + ")"
}
