package transaction_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// program is what a handler does: it makes its calls, one group after the other, and appends
// its name to its object if it writes. Its result says what it and its calls have seen.
type program struct {
	name string
	// on is the object: "a1" lives in partition 1, "b2" in partition 2. "" is a SERVICE.
	on    string
	mode  invocation.Mode
	calls []group
	// fails: it ends with an error, after its calls.
	fails bool
	// waits: before it writes it waits for somebody outside; of a DURABLE one.
	waits bool

	key string // of the object
	bit uint32 // of a program that writes
}

// group are calls that are made together and then awaited.
type group struct {
	calls []*program
	// tolerant: the handler goes on if one of them fails.
	tolerant bool
}

// client is somebody who calls a root once and waits for the answer.
type client struct {
	root *program
	// at is the partition of a root without a key.
	at uint32
	// keyed: the call has an idempotency key, and is repeated if the answer is lost.
	keyed bool
	// older than others that come at the same instant. It counts for roots without a key.
	older bool

	id invocation.ID
}

// setup is a small world to look through.
type setup struct {
	name       string
	partitions uint32
	clients    []*client
	// skew is added to a partition's clock, in milliseconds.
	skew map[uint32]int64
	// seconds may pass before everything has ended.
	seconds int64

	programs map[string]*program
	writers  []*program
	keys     map[string]string // of the objects
}

func write(name, on string, calls ...*program) *program {
	return &program{name: name, on: on, mode: invocation.ModeTransaction, calls: each(calls)}
}

func read(name, on string, calls ...*program) *program {
	return &program{name: name, on: on, mode: invocation.ModeRead, calls: each(calls)}
}

// durable waits for somebody outside before it writes.
func durable(name, on string) *program {
	return &program{name: name, on: on, mode: invocation.ModeDurable, waits: true}
}

// each are calls made one after the other.
func each(calls []*program) (groups []group) {
	for _, p := range calls {
		groups = append(groups, group{calls: []*program{p}})
	}
	return groups
}

func together(p *program) *program {
	var all []*program
	for _, g := range p.calls {
		all = append(all, g.calls...)
	}
	p.calls = []group{{calls: all}}
	return p
}

func failing(p *program) *program { p.fails = true; return p }

func tolerant(p *program) *program {
	for i := range p.calls {
		p.calls[i].tolerant = true
	}
	return p
}

// hazards are what may go wrong in an execution.
type hazards struct {
	// inOrder: what one partition sends to another comes in the order in which it was sent. If
	// not, in any order.
	inOrder bool
	// crashes, doubles and losses say how often a partition may crash and a message may be
	// doubled or lost; early how often a second may pass in a partition though there is
	// something else to do.
	crashes, doubles, losses, early uint8
}

func (h hazards) String() string {
	text := "any order"
	if h.inOrder {
		text = "in order"
	}
	for _, of := range []struct {
		count uint8
		what  string
	}{{h.crashes, "crash"}, {h.doubles, "double"}, {h.losses, "loss"}, {h.early, "early"}} {
		if of.count > 0 {
			text += fmt.Sprintf(", %d %s", of.count, of.what)
		}
	}
	return text
}

// keyOf finds a key that lives where the object's name says.
func (s *setup) keyOf(on string) string {
	if on == "" {
		return ""
	}
	for i := 0; s.keys[on] == ""; i++ {
		key := fmt.Sprint(on, ".", i)
		if invocation.PartitionOf((invocation.Target{Service: "S", Key: key}).Hash(), s.partitions) == placeOf(on) {
			s.keys[on] = key
		}
	}
	return s.keys[on]
}

func placeOf(on string) uint32 { return uint32(on[len(on)-1] - '0') }

func (p *program) target() *recordv1.Target {
	return &recordv1.Target{Service: "S", Key: p.key, Handler: p.name}
}

func (p *program) invoke() *recordv1.Invoke {
	return &recordv1.Invoke{Target: p.target(), Mode: uint32(p.mode), Input: []byte(p.name)}
}

func (p *program) writes() bool { return p.on != "" && p.mode != invocation.ModeRead }

// prepare names everything.
func (s *setup) prepare() {
	s.programs, s.keys = map[string]*program{}, map[string]string{}
	var visit func(p *program)
	visit = func(p *program) {
		if s.programs[p.name] != nil {
			panic("two programs are called " + p.name)
		}
		s.programs[p.name], p.key = p, s.keyOf(p.on)
		if p.writes() {
			p.bit = 1 << len(s.writers)
			s.writers = append(s.writers, p)
		}
		for _, g := range p.calls {
			for _, c := range g.calls {
				visit(c)
			}
		}
	}
	for i, c := range s.clients {
		visit(c.root)
		target := c.root.target()
		of := invocation.Target{Service: target.Service, Key: target.Key, Handler: target.Handler}
		hash := of.Hash()
		if c.root.on == "" {
			// Of roots that come at one instant that with the smaller id is older.
			if hash = 1 << 32; !c.older {
				hash = 1 << 63
			}
			for invocation.PartitionOf(hash, s.partitions) != c.at {
				hash++
			}
		} else {
			c.at = invocation.PartitionOf(hash, s.partitions)
		}
		c.id = invocation.NewID(hash, [16]byte{15: byte(i + 1)})
	}
}

func (c *client) invoke() *recordv1.Invoke {
	in := c.root.invoke()
	in.InvocationId = c.id[:]
	if c.keyed {
		in.IdempotencyKey, in.RetentionMs = c.root.name, 1_000_000_000
	}
	return in
}

// serial is the world as it would be if transactions came one after the other.
type serial map[string]string // object → list

// run is what a program does alone. It changes nothing if it fails.
func (p *program) run(on serial) (outcome string, after serial) {
	after = serial{}
	for object, list := range on {
		after[object] = list
	}
	o := &observed{program: p, state: after[p.on]}
	for _, g := range p.calls {
		if o.failed {
			break
		}
		for _, c := range g.calls {
			said, next := c.run(after)
			if !strings.HasPrefix(said, "!") {
				after = next
			}
			o.heard(said, g)
		}
	}
	if p.writes() {
		after[p.on] = o.appended()
	}
	if said := o.String(); strings.HasPrefix(said, "!") {
		return said, on
	}
	return o.String(), after
}

// observed is what a handler knows while it runs.
type observed struct {
	program *program
	state   string
	said    []string
	failed  bool
}

func (o *observed) heard(said string, g group) {
	o.said = append(o.said, said)
	o.failed = o.failed || strings.HasPrefix(said, "!") && !g.tolerant
}

// appended is the object's list with the program's name.
func (o *observed) appended() string { return strings.TrimSpace(o.state + " " + o.program.name) }

// String is the handler's result, or its error, which begins with "!".
func (o *observed) String() string {
	text := o.program.name
	if o.program.on != "" {
		text += fmt.Sprintf("{%s}", o.state)
	}
	if len(o.said) > 0 {
		text += fmt.Sprint(o.said)
	}
	if o.failed || o.program.fails {
		return "!" + text
	}
	return text
}

// writesOf are the programs whose names a transaction leaves behind when it succeeds.
func (s *setup) writesOf(c *client) (mask uint32) {
	outcome, after := c.root.run(serial{})
	if strings.HasPrefix(outcome, "!") {
		return 0
	}
	for _, list := range after {
		for name := range strings.FieldsSeq(list) {
			mask |= s.programs[name].bit
		}
	}
	return mask
}

// maskOf is which programs a list names, and whether it names one twice.
func (s *setup) maskOf(list string) (mask uint32, twice bool) {
	for name := range strings.FieldsSeq(list) {
		bit := s.programs[name].bit
		twice = twice || mask&bit != 0
		mask |= bit
	}
	return mask, twice
}

// objectsOf are the objects of a partition.
func (s *setup) objectsOf(partition uint32) (names []string) {
	for _, p := range s.programs {
		if p.on != "" && placeOf(p.on) == partition && !slices.Contains(names, p.on) {
			names = append(names, p.on)
		}
	}
	slices.Sort(names)
	return names
}
