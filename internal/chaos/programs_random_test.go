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
	// run makes ids of workflows unique.
	run   string
	flows int
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

// root is a whole program with the object to run it.
func (a *author) root() *chaosv1.CallProgram {
	return &chaosv1.CallProgram{Key: a.key(0), Steps: a.write(0, 6)}
}

func (a *author) key(layer int) string  { return fmt.Sprintf("%d/%d", layer, a.random.IntN(a.width)) }
func (a *author) counter() string       { return fmt.Sprintf("c/%d", a.random.IntN(a.width)) }
func (a *author) amount() int64         { return 1 + a.random.Int64N(9) }
func (a *author) millis(most int) int64 { return a.random.Int64N(int64(most)) }

func (a *author) step(layer int) *chaosv1.Do {
	kinds := 8
	if layer+1 < layers {
		kinds = 13
	}
	switch a.random.IntN(kinds) {
	case 0, 1:
		return &chaosv1.Do{Step: &chaosv1.Do_Add{Add: a.amount()}}
	case 2:
		return &chaosv1.Do{Step: &chaosv1.Do_SleepMs{SleepMs: a.millis(20)}}
	case 3, 4:
		return &chaosv1.Do{Step: &chaosv1.Do_Run{Run: &chaosv1.RunClosure{
			Failures: int32(max(0, a.random.IntN(5)-2)), Value: a.amount(), Aside: a.random.IntN(3) == 0,
		}}}
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
		a.flows++
		flow := &chaosv1.FlowStep{Id: fmt.Sprintf("%s/%d", a.run, a.flows), Counter: a.counter(), Settle: a.amount()}
		for range a.random.IntN(4) {
			flow.Nudges = append(flow.Nudges, a.amount())
		}
		flow.Early = int32(a.random.IntN(len(flow.Nudges) + 1))
		return &chaosv1.Do{Step: &chaosv1.Do_Flow{Flow: flow}}
	case 8, 9:
		return &chaosv1.Do{Step: &chaosv1.Do_Call{Call: a.call(layer + 1)}}
	case 10:
		together := &chaosv1.Together{}
		for range 2 + a.random.IntN(3) {
			together.Calls = append(together.Calls, a.call(layer+1))
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Together{Together: together}}
	case 11:
		send := &chaosv1.SendProgram{Key: a.key(layer + 1), Steps: a.write(layer+1, 3), DelayMs: max(0, a.millis(60)-20)}
		if a.random.IntN(4) == 0 {
			send.Cancel, send.DelayMs = true, 3_600_000
		}
		return &chaosv1.Do{Step: &chaosv1.Do_Send{Send: send}}
	default:
		return &chaosv1.Do{Step: &chaosv1.Do_Awaken{Awaken: &chaosv1.Awaken{By: a.key(layer + 1), Value: a.amount(), Reject: a.random.IntN(4) == 0}}}
	}
}

func (a *author) call(layer int) *chaosv1.CallProgram {
	call := &chaosv1.CallProgram{Key: a.key(layer), Steps: a.write(layer, 3)}
	if a.random.IntN(5) == 0 {
		call.Steps = append(call.Steps, &chaosv1.Do{Step: &chaosv1.Do_Fail{Fail: true}})
	}
	return call
}

// counts is what every counter must hold.
type counts map[string]int64

// expect adds what a program on an object comes to, with all that it calls and sends.
func (c counts) expect(key string, steps []*chaosv1.Do) {
	own, _ := ownAdds(steps)
	c[key] += own
	for _, step := range steps {
		switch s := step.Step.(type) {
		case *chaosv1.Do_Call:
			c.expect(s.Call.Key, s.Call.Steps)
		case *chaosv1.Do_Together:
			for _, call := range s.Together.Calls {
				c.expect(call.Key, call.Steps)
			}
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
	maps.DeleteFunc(c, func(_ string, count int64) bool { return count == 0 })
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
