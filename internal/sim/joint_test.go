package sim

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// The codes of handlers that fail on purpose, and of what an engine says.
const (
	codeCanceled         = 1
	codeDeadlineExceeded = 4
	codeAborted          = 10
	codeUnavailable      = 14
)

// step is what a batch does with one list.
type step struct {
	// Do is the name of a handler of sim.List.
	Do  string
	Key string
	// Value to append; 0 for those that only read.
	Value int64 `json:",omitempty"`
	// Then is what the handler calls in turn.
	Then *step `json:",omitempty"`
}

func (b batch) target() invocation.Target {
	if b.Root == "" {
		return target("sim.Lists", "", "Batch")
	}
	return target("sim.List", b.Root, "Batch")
}

// reads are the steps made by calling a READ handler.
var reads = map[string]bool{"Get": true, "GetVia": true}

// batch is the input of a transaction over lists.
type batch struct {
	// Root is the list whose handler makes the steps; "" is a handler of no object.
	Root  string `json:",omitempty"`
	Steps []step
	// Together: all calls are made before the first is awaited.
	Together bool `json:",omitempty"`
	// Fail at the end, so that nothing takes effect.
	Fail bool `json:",omitempty"`
}

// seen is what came of a step.
type seen struct {
	// Failed: what the step and those below it appended was taken back.
	Failed bool    `json:",omitempty"`
	List   []int64 `json:",omitempty"`
	Then   *seen   `json:",omitempty"`
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types always can
	}
	return text
}

func decode(text []byte, v any) {
	if len(text) == 0 {
		return
	}
	if err := json.Unmarshal(text, v); err != nil {
		panic(fmt.Sprintf("%q: %v", text, err))
	}
}

func list(state []byte) (values []int64) {
	decode(state, &values)
	return values
}

func success(v []byte, entries ...*recordv1.Entry) *invoker.Outcome {
	return &invoker.Outcome{Result: &recordv1.Result{Value: v}, Entries: entries}
}

func failed(code uint32, message string) *invoker.Outcome {
	return &invoker.Outcome{Result: &recordv1.Result{Error: &recordv1.Error{Code: code, Message: message}}}
}

// join makes a call that becomes part of the handler's transaction.
func (h *handler) join(service, key, name string, mode invocation.Mode, input []byte) uint32 {
	h.index++
	h.attempt.Host.Call(h.attempt, h.index, &recordv1.Invoke{
		Target: &recordv1.Target{Service: service, Key: key, Handler: name}, Mode: uint32(mode), Input: input,
	})
	return h.index
}

// joined waits for a call's result. A transaction waits with its goroutine only.
func (h *handler) joined(index uint32) *recordv1.Result {
	for {
		h.mu.Lock()
		c := h.mu.completions[index]
		h.mu.Unlock()
		if c != nil {
			return c.Result
		}
		select {
		case <-h.wake:
		case <-h.over:
			runtime.Goexit()
		}
	}
}

// think is time that a handler spends between its calls.
func (h *handler) think(what string) {
	if h.runner.luck(h.attempt.ID, h.attempt.Number, what, 3) == 0 {
		time.Sleep(time.Duration(h.runner.luck(h.attempt.ID, h.attempt.Number, what+"?", 4000)) * time.Microsecond)
	}
}

// ask makes the call of a step.
func (h *handler) ask(s step) uint32 {
	mode := invocation.ModeTransaction
	if reads[s.Do] {
		mode = invocation.ModeRead
	}
	return h.join("sim.List", s.Key, s.Do, mode, encode(s))
}

// runBatch is the root: of no object, or of a list, whose own steps it makes itself.
func (h *handler) runBatch() *invoker.Outcome {
	var b batch
	decode(h.attempt.Input, &b)
	own, wrote := list(h.attempt.State), false
	all := make([]*seen, len(b.Steps))
	calls := make([]uint32, len(b.Steps))
	take := func(i int) *recordv1.Error {
		if calls[i] == 0 {
			return nil
		}
		result := h.joined(calls[i])
		switch code := result.GetError().GetCode(); {
		case result.GetError() == nil:
			all[i] = &seen{}
			decode(result.Value, all[i])
		case code == codeAborted || code == codeFailedPrecondition:
			all[i] = &seen{Failed: true}
		default:
			return result.Error
		}
		return nil
	}
	var broken *recordv1.Error
	for i, s := range b.Steps {
		if s.Key == h.attempt.Target.Key && s.Then == nil {
			if s.Value != 0 && s.Do == "Append" {
				own, wrote = append(own, s.Value), true
			}
			all[i] = &seen{List: append([]int64(nil), own...), Failed: s.Do == "Fail"}
			continue
		}
		calls[i] = h.ask(s)
		h.think(fmt.Sprint("after", i))
		if b.Together {
			continue
		}
		if broken = take(i); broken != nil {
			break
		}
	}
	if b.Together {
		for i := range b.Steps { // All are waited for, whatever they come to.
			if err := take(i); err != nil {
				broken = err
			}
		}
	}
	switch {
	case broken != nil:
		return failed(broken.Code, broken.Message)
	case b.Fail:
		return failed(codeAborted, "on purpose")
	}
	var entries []*recordv1.Entry
	if wrote {
		entries = append(entries, setState(encode(own)))
	}
	return success(encode(all), entries...)
}

// runList is a handler of one list, called by itself or inside a transaction.
func (h *handler) runList() *invoker.Outcome {
	a := h.attempt
	var s step
	decode(a.Input, &s)
	values := list(a.State)
	switch a.Target.Handler {
	case "Get", "Look":
		return success(encode(seen{List: values}))
	case "Append":
		values = append(values, s.Value)
		return success(encode(seen{List: values}), setState(encode(values)))
	case "Fail":
		return failed(codeAborted, "on purpose")
	}
	// Via, FailVia and GetVia call another list.
	answer := seen{List: values}
	var entries []*recordv1.Entry
	if s.Value != 0 {
		answer.List = append(values, s.Value)
		entries = append(entries, setState(encode(answer.List)))
	}
	h.think("via")
	result := h.joined(h.ask(*s.Then))
	if result.GetError() != nil {
		return failed(result.Error.Code, result.Error.Message)
	}
	answer.Then = &seen{}
	decode(result.Value, answer.Then)
	h.think("back")
	if strings.HasPrefix(a.Target.Handler, "Fail") {
		return failed(codeAborted, "on purpose")
	}
	return success(encode(answer), entries...)
}

// slow is the DURABLE handler of a list: it appends twice, with the key held in between.
func (h *handler) slow(done chan<- *invoker.Outcome) *invoker.Outcome {
	var s step
	decode(h.attempt.Input, &s)
	values := list(h.attempt.State)
	for i := range 2 {
		before := int(h.index) < len(h.attempt.Journal)
		if !before {
			values = append(values, s.Value+int64(i))
		}
		h.step(setState(encode(values)))
		if i == 0 {
			pause := time.Duration(h.runner.luck(h.attempt.ID, 0, "hold", 60)) * time.Millisecond
			at := h.step(&recordv1.Entry{Entry: &recordv1.Entry_Sleep{Sleep: &recordv1.Sleep{Until: h.runner.node.now().Add(pause).UnixMilli()}}})
			h.await(done, at)
		}
	}
	return success(nil)
}

// errand is a DURABLE handler with a transaction as its step.
func (h *handler) errand(done chan<- *invoker.Outcome) *invoker.Outcome {
	var b batch
	decode(h.attempt.Input, &b)
	result := h.callStep(done, b.target(), h.attempt.Input)
	return &invoker.Outcome{Result: result}
}

// move is the root of a transfer: "from to amount". As a handler of an account, that one pays.
func (h *handler) move() *invoker.Outcome {
	a := h.attempt
	words := strings.Fields(string(a.Input))
	from, to, amount := words[0], words[1], []byte(words[2])
	var entries []*recordv1.Entry
	var calls []uint32
	if a.Target.Service == "sim.Account" {
		balance := number(a.State) - number(amount)
		if balance < 0 {
			return failed(codeFailedPrecondition, "not enough")
		}
		entries = append(entries, setState(value(balance)))
	} else {
		calls = append(calls, h.join("sim.Account", from, "Withdraw", invocation.ModeTransaction, amount))
		h.think("withdrawn")
		if h.runner.luck(a.ID, 0, "one by one", 2) == 0 {
			if err := h.joined(calls[0]).GetError(); err != nil {
				return failed(err.Code, err.Message)
			}
		}
	}
	calls = append(calls, h.join("sim.Account", to, "Deposit", invocation.ModeTransaction, amount))
	var problem *recordv1.Error
	for _, index := range calls {
		if err := h.joined(index).GetError(); err != nil && problem == nil {
			problem = err
		}
	}
	h.think("deposited")
	if problem != nil {
		return failed(problem.Code, problem.Message)
	}
	if a.Target.Service == "sim.Mover" && a.Target.Key != "" {
		entries = append(entries, setState(value(number(a.State)+1)))
	}
	return success([]byte("moved"), append(entries, h.send(0))...)
}

// total reads all accounts that only transactions touch.
func (h *handler) total() *invoker.Outcome {
	var calls []uint32
	for i := range purses {
		calls = append(calls, h.join("sim.Account", purse(i), "Balance", invocation.ModeRead, nil))
	}
	sum := int64(0)
	for _, index := range calls {
		result := h.joined(index)
		if result.GetError() != nil {
			return failed(result.Error.Code, result.Error.Message)
		}
		sum += number(result.Value)
	}
	return success(value(sum))
}
