package actor

// Condition is what a future waits for, as a [Runtime] sees it: one entry, or parts of which
// enough must complete. It belongs to one goroutine.
type Condition struct {
	// Quantifier says how many of Parts must complete.
	Quantifier Quantifier
	// Entry that must complete, for QuantifierEntry.
	Entry uint32
	// Parts are not changed.
	Parts []*Condition

	// of what made Entry. nil for a call of a client and for a step that was refused.
	runtime Runtime
	// of a call of a client.
	outside *outside
	// of a step that was refused, and of futures that do not belong together.
	refused error

	verdict verdict
	winner  int // the position of the part that decided; of no meaning for All and Settled
}

// outside is a leaf that no journal knows.
type outside struct {
	done   <-chan struct{}
	failed func() bool // valid once done is closed
}

// Quantifier says how many parts of a [Condition] must complete.
type Quantifier uint8

// The quantifiers. Numbers are those of the record.
const (
	QuantifierEntry   Quantifier = 0
	QuantifierFirst   Quantifier = 1
	QuantifierSettled Quantifier = 2
	QuantifierAny     Quantifier = 3
	QuantifierAll     Quantifier = 4
	QuantifierTimeout Quantifier = 5
)

type verdict uint8

const (
	open verdict = iota
	succeeded
	failed
)

// Verdict is how c was decided, if it was.
func (c *Condition) Verdict() (decided, failure bool) {
	if c.refused != nil {
		return true, true
	}
	return c.verdict != open, c.verdict == failed
}

// Decide settles c, and those of its parts that can be, if ended says of enough entries that they
// have completed, and how. Where several parts could decide the first does. It reports whether c is
// decided; what is decided stays as it is, and nothing is as long as c is not.
func (c *Condition) Decide(ended func(entry uint32) (done, failure bool)) bool {
	if was, _ := c.judge(ended); was == open {
		return false
	}
	c.settle(ended)
	return true
}

// Decidable reports whether Decide would decide c, and changes nothing.
func (c *Condition) Decidable(ended func(entry uint32) (done, failure bool)) bool {
	is, _ := c.judge(ended)
	return is != open
}

func (c *Condition) settle(ended func(entry uint32) (done, failure bool)) {
	if c.verdict != open {
		return
	}
	for _, part := range c.Parts {
		part.settle(ended)
	}
	c.verdict, c.winner = c.judge(ended)
}

// judge changes nothing.
func (c *Condition) judge(ended func(entry uint32) (done, failure bool)) (is verdict, winner int) {
	switch {
	case c.refused != nil:
		return failed, 0
	case c.verdict != open:
		return c.verdict, c.winner
	case c.outside != nil:
		select {
		case <-c.outside.done:
			return verdictOf(true, c.outside.failed()), 0
		default:
			return open, 0
		}
	case c.Quantifier == QuantifierEntry:
		return verdictOf(ended(c.Entry)), 0
	}
	waiting := false
	for position, part := range c.Parts {
		was, _ := part.judge(ended)
		switch {
		case was == open:
			waiting = true
		case c.Quantifier == QuantifierTimeout && position == 1:
			return failed, position
		case c.Quantifier == QuantifierFirst, c.Quantifier == QuantifierTimeout,
			c.Quantifier == QuantifierAny && was == succeeded, c.Quantifier == QuantifierAll && was == failed:
			return was, position
		}
	}
	switch {
	case waiting:
		return open, 0
	case c.Quantifier == QuantifierAny:
		return failed, 0
	}
	return succeeded, 0
}

func verdictOf(done, failure bool) verdict {
	switch {
	case !done:
		return open
	case failure:
		return failed
	}
	return succeeded
}

// Undecided calls yield with the entries, from the left, of all parts that are not decided.
func (c *Condition) Undecided(yield func(entry uint32)) {
	switch {
	case c.verdict != open || c.refused != nil || c.outside != nil:
	case c.Quantifier == QuantifierEntry:
		yield(c.Entry)
	default:
		for _, part := range c.Parts {
			part.Undecided(yield)
		}
	}
}

// Evident reports whether a later look, with more entries completed, would decide c in the same way
// as a look that found all that Undecided yields completed as ended says: a replay then needs no
// record of what was seen.
func (c *Condition) Evident(ended func(entry uint32) (done, failure bool)) bool {
	if c.verdict != open || c.refused != nil {
		return true
	}
	if c.Quantifier == QuantifierEntry {
		done, _ := ended(c.Entry)
		return done
	}
	for _, part := range c.Parts {
		if !part.Evident(ended) {
			return false
		}
	}
	is, _ := c.judge(ended)
	switch c.Quantifier {
	case QuantifierSettled:
		return true
	case QuantifierAll:
		return is == succeeded
	case QuantifierAny:
		return is == failed
	}
	return len(c.Parts) == 1
}

// owner is the one runtime that all steps in c belong to, nil if there are none.
func (c *Condition) owner() (owner Runtime, outside, ok bool) {
	if c.refused != nil {
		return nil, false, true
	}
	owner, outside = c.runtime, c.outside != nil
	for _, part := range c.Parts {
		of, isOutside, same := part.owner()
		if !same || of != nil && owner != nil && of != owner {
			return nil, false, false
		}
		if owner == nil {
			owner = of
		}
		outside = outside || isOutside
	}
	return owner, outside, owner == nil || !outside
}
