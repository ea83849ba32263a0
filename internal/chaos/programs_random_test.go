package chaos

import (
	"fmt"
	"maps"
	"math/rand/v2"

	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
)

// layers is how deep programs call; the last layer calls nobody.
const layers = 3

// author makes up programs.
type author struct {
	random *rand.Rand
	// width is how many objects each layer has: few, so that programs meet.
	width int
	// run makes ids of workflows and idempotency keys unique.
	run   string
	names int
}

// name is one that nobody else has.
func (a *author) name() string {
	a.names++
	return fmt.Sprintf("%s/%d", a.run, a.names)
}

// write makes up a program for an object of a layer. Amounts are positive, so that a counter never
// exceeds what it must hold in the end.
func (a *author) write(layer, most int) []*chaosv1.Do {
	steps := make([]*chaosv1.Do, 0, most)
	for range 1 + a.random.IntN(most) {
		steps = append(steps, a.step(layer))
	}
	return steps
}

// ended makes up the end of a program: it may begin anew and, if it may, fail.
func (a *author) ended(layer int, mayFail bool, steps []*chaosv1.Do) []*chaosv1.Do {
	switch a.random.IntN(5) {
	case 0:
		again := &chaosv1.Again{Steps: a.ended(layer, mayFail, a.write(layer, 2))}
		return append(steps, &chaosv1.Do{Step: &chaosv1.Do_Again{Again: again}})
	case 1:
		if mayFail {
			return append(steps, &chaosv1.Do{Step: &chaosv1.Do_Fail{Fail: true}})
		}
	}
	return steps
}

// root is a whole program with the object to run it.
func (a *author) root() *chaosv1.CallProgram {
	return &chaosv1.CallProgram{Key: a.key(0), Steps: a.ended(0, false, a.write(0, 6))}
}

func (a *author) key(layer int) string  { return fmt.Sprintf("%d/%d", layer, a.random.IntN(a.width)) }
func (a *author) counter() string       { return fmt.Sprintf("c/%d", a.random.IntN(a.width)) }
func (a *author) amount() int64         { return 1 + a.random.Int64N(9) }
func (a *author) millis(most int) int64 { return a.random.Int64N(int64(most)) }

func (a *author) step(layer int) *chaosv1.Do {
	kinds := 9
	if layer+1 < layers {
		kinds = 17
	}
	switch a.random.IntN(kinds) {
	case 0, 1:
		return &chaosv1.Do{Step: &chaosv1.Do_Add{Add: a.amount()}}
	case 2:
		return &chaosv1.Do{Step: &chaosv1.Do_SleepMs{SleepMs: a.millis(20)}}
	case 3, 4:
		run := &chaosv1.RunClosure{Failures: int32(max(0, a.random.IntN(5)-2)), Value: a.amount(), Aside: a.random.IntN(3) == 0}
		if run.Failures == 0 && run.Value == 9 { // Not by chance: kept seeds would be other programs.
			run.Bytes = 2_000_000
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Run{Run: run}}
	case 5:
		return &chaosv1.Do{Step: &chaosv1.Do_TimeOutMs{TimeOutMs: a.millis(20)}}
	case 6:
		// Each counter once: a second add to the same one is in the engine's random programs.
		keys, first := []string{}, a.random.IntN(a.width)
		for i := range 1 + a.random.IntN(min(3, a.width)) {
			keys = append(keys, fmt.Sprintf("c/%d", (first+i)%a.width))
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Move{Move: &chaosv1.MoveRequest{Keys: keys, Amount: a.amount(), Fail: a.random.IntN(4) == 0}}}
	case 7:
		flow := &chaosv1.FlowStep{Id: a.name(), Counter: a.counter(), Settle: a.amount(), Attach: a.random.IntN(2) == 0}
		for range a.random.IntN(4) {
			flow.Nudges = append(flow.Nudges, a.amount())
		}
		flow.Early = int32(a.random.IntN(len(flow.Nudges) + 1))
		return &chaosv1.Do{Step: &chaosv1.Do_Flow{Flow: flow}}
	case 8:
		return &chaosv1.Do{Step: &chaosv1.Do_Version{Version: &chaosv1.VersionStep{Amount: a.amount(), Later: a.random.IntN(2) == 0}}}
	case 9, 10:
		return &chaosv1.Do{Step: &chaosv1.Do_Call{Call: a.call(layer + 1)}}
	case 11:
		return &chaosv1.Do{Step: &chaosv1.Do_Together{Together: &chaosv1.Together{Calls: a.calls(layer + 1)}}}
	case 12:
		send := &chaosv1.SendProgram{Key: a.key(layer + 1), Steps: a.ended(layer+1, false, a.write(layer+1, 3)), DelayMs: max(0, a.millis(60)-20)}
		if a.random.IntN(4) == 0 {
			send.Cancel, send.DelayMs = true, 3_600_000
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Send{Send: send}}
	case 13:
		call := a.call(layer + 1)
		attach := &chaosv1.AttachProgram{Key: call.Key, Steps: call.Steps}
		if a.random.IntN(2) == 0 {
			attach.IdempotencyKey = a.name()
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Attach{Attach: attach}}
	case 14, 15:
		return &chaosv1.Do{Step: &chaosv1.Do_Combine{Combine: &chaosv1.Combine{
			Combination: chaosv1.Combination(1 + a.random.IntN(4)), Calls: a.calls(layer + 1), TimeoutMs: a.millis(20),
		}}}
	default:
		return &chaosv1.Do{Step: &chaosv1.Do_Awaken{Awaken: &chaosv1.Awaken{By: a.key(layer + 1), Value: a.amount(), Reject: a.random.IntN(4) == 0}}}
	}
}

func (a *author) call(layer int) *chaosv1.CallProgram {
	return &chaosv1.CallProgram{Key: a.key(layer), Steps: a.ended(layer, true, a.write(layer, 3))}
}

func (a *author) calls(layer int) (calls []*chaosv1.CallProgram) {
	for range 2 + a.random.IntN(3) {
		calls = append(calls, a.call(layer))
	}
	return calls
}

// counts is what every counter must hold.
type counts map[string]int64

// expect adds what a program on an object comes to, with all that it calls and sends.
func (c counts) expect(key string, steps []*chaosv1.Do) {
	own, _ := ownAdds(steps)
	c[key] += own
	c.expectOthers(steps)
	maps.DeleteFunc(c, func(_ string, count int64) bool { return count == 0 })
}

// expectOthers adds what a program brings about on other objects.
func (c counts) expectOthers(steps []*chaosv1.Do) {
	for _, step := range steps {
		switch s := step.Step.(type) {
		case *chaosv1.Do_Call:
			c.expect(s.Call.Key, s.Call.Steps)
		case *chaosv1.Do_Together:
			c.expectAll(s.Together.Calls)
		case *chaosv1.Do_Combine:
			c.expectAll(s.Combine.Calls)
		case *chaosv1.Do_Attach:
			c.expect(s.Attach.Key, s.Attach.Steps)
		case *chaosv1.Do_Again:
			c.expectOthers(s.Again.Steps)
		case *chaosv1.Do_Send:
			if !s.Send.Cancel {
				c.expect(s.Send.Key, s.Send.Steps)
			}
		case *chaosv1.Do_Move:
			if !s.Move.Fail {
				for _, counter := range s.Move.Keys {
					c[counter] += s.Move.Amount
				}
			}
		case *chaosv1.Do_Flow:
			c[s.Flow.Counter] += flowSum(s.Flow)
		}
	}
}

func (c counts) expectAll(calls []*chaosv1.CallProgram) {
	for _, call := range calls {
		c.expect(call.Key, call.Steps)
	}
}

// ownAdds is what a program adds to its own counter, and whether it fails in the end. What it had
// aside is not waited for then, so that it does not count.
func ownAdds(steps []*chaosv1.Do) (added int64, fails bool) {
	var aside int64
	for _, step := range steps {
		switch s := step.Step.(type) {
		case *chaosv1.Do_Add:
			added += s.Add
		case *chaosv1.Do_Run:
			if s.Run.Aside {
				aside += s.Run.Value
			} else {
				added += s.Run.Value
			}
		case *chaosv1.Do_Awaken:
			if !s.Awaken.Reject {
				added += s.Awaken.Value
			}
		case *chaosv1.Do_TimeOutMs:
			added++
		case *chaosv1.Do_Version:
			added += s.Version.Amount
		case *chaosv1.Do_Combine:
			if s.Combine.Combination == chaosv1.Combination_COMBINATION_NESTED {
				added++
			}
		case *chaosv1.Do_Again:
			// What was aside is waited for before the program begins anew.
			rest, fails := ownAdds(s.Again.Steps)
			return added + aside + rest, fails
		case *chaosv1.Do_Fail:
			return added, true
		}
	}
	return added + aside, false
}

// flowSum depends on the order of the signals.
func flowSum(flow *chaosv1.FlowStep) (sum int64) {
	for _, amount := range flow.Nudges {
		sum = 3*sum + amount
	}
	return sum + flow.Settle
}
