package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
	programs "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
)

func registerPrograms(r actor.Registrar) {
	programs.RegisterInterpreterHandler(r, &interpreter{})
	programs.RegisterMoverHandler(r, mover{})
	programs.RegisterFlowHandler(r, flows{})
}

// interpreter runs programs.
type interpreter struct {
	// failed counts how often closures have failed in this process, by invocation and step: they
	// succeed in the end, after a crash perhaps later.
	failed sync.Map
}

// Interpret runs one program. Whatever goes wrong in a way that the program did not plan is an
// error of code internal, which ends the program, and the test by its counters.
func (i *interpreter) Interpret(ctx programs.InterpreterDurableContext, req *chaosv1.InterpretRequest) (*chaosv1.InterpretResponse, error) {
	p := program{interpreter: i, ctx: ctx, added: req.Added}
	for at, step := range req.Steps {
		if again := step.GetAgain(); again != nil {
			if err := p.awaitAside(); err != nil {
				return nil, err
			}
			return nil, actor.ContinueAsNew(&chaosv1.InterpretRequest{Steps: again.Steps, Added: p.added})
		}
		if err := p.do(at, step); err != nil {
			return nil, err
		}
	}
	if err := p.awaitAside(); err != nil {
		return nil, err
	}
	return &chaosv1.InterpretResponse{Added: p.added}, nil
}

// Add is a transaction of one object.
func (i *interpreter) Add(ctx programs.InterpreterTxContext, req *chaosv1.AddRequest) (*chaosv1.AddResponse, error) {
	st := ctx.State().Get()
	st.Count += req.Amount
	ctx.State().Set(st)
	return &chaosv1.AddResponse{Count: st.Count}, nil
}

// Count reads.
func (i *interpreter) Count(ctx programs.InterpreterReadContext, _ *chaosv1.CountRequest) (*chaosv1.CountResponse, error) {
	return &chaosv1.CountResponse{Count: ctx.State().Get().Count}, nil
}

// unplanned is an error that no program expects.
func unplanned(what string, err error) error {
	if errors.Is(err, actor.ErrCanceled) {
		return err
	}
	return actor.Errorf(actor.Internal, "%s: %v", what, err)
}

// program is one run of Interpret.
type program struct {
	interpreter *interpreter
	ctx         programs.InterpreterDurableContext
	added       int64
	aside       []aside
}

type aside struct {
	step   *chaosv1.RunClosure
	future actor.Future[*chaosv1.ClosureValue]
}

// filling is so many bytes that follow from a seed.
func filling(seed int64, size int32) []byte {
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = random.Read(data) // It does not fail.
	return data
}

func checkClosure(step *chaosv1.RunClosure, value *chaosv1.ClosureValue, err error) error {
	if err == nil && (value.Value != step.Value || !bytes.Equal(value.Filling, filling(step.Value, step.Bytes))) {
		return fmt.Errorf("a closure of %d and %d bytes gave %d and %d, or others", step.Value, step.Bytes, value.Value, len(value.Filling))
	}
	return err
}

func (p *program) add(amount int64) {
	p.added += amount
	p.ctx.State().Update(func(s *chaosv1.InterpreterState) { s.Count += amount })
}

// awaitAside adds what came of the closures beside the program.
func (p *program) awaitAside() error {
	for _, aside := range p.aside {
		value, err := aside.future.Await(p.ctx)
		if err = checkClosure(aside.step, value, err); err != nil {
			return unplanned("a closure beside the program", err)
		}
		p.add(value.Value)
	}
	return nil
}

func (p *program) do(at int, step *chaosv1.Do) error {
	ctx := p.ctx
	switch s := step.Step.(type) {
	case *chaosv1.Do_Add:
		p.add(s.Add)
	case *chaosv1.Do_SleepMs:
		return actor.Sleep(ctx, time.Duration(s.SleepMs)*time.Millisecond)
	case *chaosv1.Do_Call:
		response, err := programs.Interpreter(ctx, s.Call.Key).Interpret(ctx, &chaosv1.InterpretRequest{Steps: s.Call.Steps})
		return checkCall(s.Call, response, err)
	case *chaosv1.Do_Together:
		return p.together(s.Together)
	case *chaosv1.Do_Send:
		return p.send(s.Send)
	case *chaosv1.Do_Move:
		_, err := programs.Mover(ctx).Move(ctx, s.Move)
		if s.Move.Fail && actor.CodeOf(err) == actor.Aborted {
			return nil
		}
		if err != nil || s.Move.Fail {
			return unplanned("move", err)
		}
	case *chaosv1.Do_Run:
		return p.run(at, s.Run)
	case *chaosv1.Do_Awaken:
		return p.awaken(s.Awaken)
	case *chaosv1.Do_Wake:
		var failure error
		if s.Wake.Reject {
			failure = actor.Errorf(actor.Aborted, "rejected")
			return actor.RejectAwakeable(ctx, ctx, s.Wake.AwakeableId, failure)
		}
		return actor.ResolveAwakeable(ctx, ctx, s.Wake.AwakeableId, s.Wake.Value)
	case *chaosv1.Do_Flow:
		return p.flow(s.Flow)
	case *chaosv1.Do_TimeOutMs:
		never := actor.NewAwakeable[int64](ctx)
		winner, err := actor.Select(ctx, never, actor.After(ctx, time.Duration(s.TimeOutMs)*time.Millisecond))
		if err != nil || winner != 1 {
			return unplanned(fmt.Sprintf("time out: future %d", winner), err)
		}
		p.add(1)
	case *chaosv1.Do_Version:
		return p.version(at, s.Version)
	case *chaosv1.Do_Attach:
		return p.attach(s.Attach)
	case *chaosv1.Do_Combine:
		return p.combine(s.Combine)
	case *chaosv1.Do_Fail:
		return actor.Errorf(actor.Aborted, "as planned")
	default:
		return actor.Errorf(actor.Unimplemented, "step %T", s)
	}
	return nil
}

// checkCall compares what a callee returned with what its program must come to.
func checkCall(call *chaosv1.CallProgram, response *chaosv1.InterpretResponse, err error) error {
	added, fails := ownAdds(call.Steps)
	switch {
	case fails && actor.CodeOf(err) == actor.Aborted:
		return nil
	case fails || err != nil:
		return unplanned("call of "+call.Key, err)
	case response.Added != added:
		return actor.Errorf(actor.Internal, "the program of %s added %d, not %d", call.Key, response.Added, added)
	}
	return nil
}

func (p *program) together(step *chaosv1.Together) error {
	return p.checkCalls(step.Calls, p.begin(step.Calls))
}

// begin makes calls side by side.
func (p *program) begin(calls []*chaosv1.CallProgram) []actor.Future[*chaosv1.InterpretResponse] {
	futures := make([]actor.Future[*chaosv1.InterpretResponse], len(calls))
	for i, call := range calls {
		futures[i] = programs.Interpreter(p.ctx, call.Key).InterpretAsync(p.ctx, &chaosv1.InterpretRequest{Steps: call.Steps})
	}
	return futures
}

func (p *program) checkCalls(calls []*chaosv1.CallProgram, futures []actor.Future[*chaosv1.InterpretResponse]) error {
	for i, future := range futures {
		response, err := future.Await(p.ctx)
		if err := checkCall(calls[i], response, err); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) send(step *chaosv1.SendProgram) error {
	var options []actor.SendOption
	if step.DelayMs > 0 {
		options = append(options, actor.Delay(time.Duration(step.DelayMs)*time.Millisecond))
	}
	sent, err := programs.Interpreter(p.ctx, step.Key).InterpretSend(p.ctx, &chaosv1.InterpretRequest{Steps: step.Steps}, options...)
	if err != nil {
		return unplanned("send", err)
	}
	if step.Cancel {
		return sent.Cancel(p.ctx)
	}
	return nil
}

func (p *program) run(at int, step *chaosv1.RunClosure) error {
	name := fmt.Sprint("closure ", at)
	id := p.ctx.InvocationID() + name
	closure := func(context.Context) (*chaosv1.ClosureValue, error) {
		// The closure of an attempt that was given up may still run beside that of the next.
		failed, _ := p.interpreter.failed.LoadOrStore(id, new(atomic.Int32))
		if failed.(*atomic.Int32).Add(1) <= step.Failures {
			return nil, errors.New("fails, as planned")
		}
		return &chaosv1.ClosureValue{Value: step.Value, Filling: filling(step.Value, step.Bytes)}, nil
	}
	policy := actor.RunRetry(actor.RunPolicy{InitialInterval: time.Millisecond, MaxInterval: 10 * time.Millisecond, MaxAttempts: 1_000})
	if step.Aside {
		p.aside = append(p.aside, aside{step, actor.RunAsync(p.ctx, name, closure, policy)})
		return nil
	}
	value, err := actor.Run(p.ctx, name, closure, policy)
	if err = checkClosure(step, value, err); err != nil {
		return unplanned(name, err)
	}
	p.add(value.Value)
	return nil
}

func (p *program) awaken(step *chaosv1.Awaken) error {
	awakeable := actor.NewAwakeable[int64](p.ctx)
	wake := &chaosv1.Do{Step: &chaosv1.Do_Wake{Wake: &chaosv1.Wake{AwakeableId: awakeable.ID(), Value: step.Value, Reject: step.Reject}}}
	if _, err := programs.Interpreter(p.ctx, step.By).InterpretSend(p.ctx, &chaosv1.InterpretRequest{Steps: []*chaosv1.Do{wake}}); err != nil {
		return unplanned("awaken", err)
	}
	value, err := awakeable.Await(p.ctx)
	if step.Reject && actor.CodeOf(err) == actor.Aborted {
		return nil
	}
	if err != nil || step.Reject {
		return unplanned("awakeable", err)
	}
	p.add(value)
	return nil
}

// flow runs a workflow: some signals come before it, some after, then the promise.
func (p *program) flow(step *chaosv1.FlowStep) error {
	ctx, flow := p.ctx, programs.Flow(p.ctx, step.Id)
	nudge := func(amounts []int64) error {
		for _, amount := range amounts {
			if _, err := flow.Nudge(ctx, &chaosv1.NudgeRequest{Amount: amount}); err != nil {
				return unplanned("nudge", err)
			}
		}
		return nil
	}
	if err := nudge(step.Nudges[:step.Early]); err != nil {
		return err
	}
	request := &chaosv1.RunFlowRequest{Counter: step.Counter, Nudges: int32(len(step.Nudges))}
	var result actor.Future[*chaosv1.RunFlowResponse]
	if !step.Attach {
		result = flow.RunAsync(ctx, request)
	} else if _, err := flow.RunSend(ctx, request); err != nil {
		return unplanned("send of a flow", err)
	}
	if err := nudge(step.Nudges[step.Early:]); err != nil {
		return err
	}
	if _, err := flow.Settle(ctx, &chaosv1.SettleRequest{Amount: step.Settle}); err != nil {
		return unplanned("settle", err)
	}
	if step.Attach {
		result = actor.Attach[*chaosv1.RunFlowResponse](ctx, actor.IDOf(programs.FlowServiceName, step.Id, "Run", "")).AttachAsync(ctx)
	}
	response, err := result.Await(ctx)
	if err != nil {
		return unplanned("flow", err)
	}
	if want := flowSum(step); response.Sum != want {
		return actor.Errorf(actor.Internal, "the flow came to %d, not %d", response.Sum, want)
	}
	return nil
}

// mover adds to several counters.
type mover struct{}

// Move is all or nothing.
func (mover) Move(ctx actor.Context, req *chaosv1.MoveRequest) (*chaosv1.MoveResponse, error) {
	for _, key := range req.Keys {
		if _, err := programs.Interpreter(ctx, key).Add(ctx, &chaosv1.AddRequest{Amount: req.Amount}); err != nil {
			return nil, err
		}
	}
	if req.Fail {
		return nil, actor.Errorf(actor.Aborted, "as planned")
	}
	return nil, nil
}

// flows are workflows.
type flows struct{}

// Run waits for its signals, in order, and for its promise.
func (flows) Run(ctx programs.FlowRunContext, req *chaosv1.RunFlowRequest) (*chaosv1.RunFlowResponse, error) {
	for range req.Nudges {
		nudge, err := ctx.Nudge().Receive(ctx)
		if err != nil {
			return nil, err
		}
		// A signal that comes out of order or twice comes to another sum.
		ctx.State().Update(func(s *chaosv1.FlowState) { s.Sum = 3*s.Sum + nudge.Amount })
	}
	settled, err := ctx.Settled().Await(ctx)
	if err != nil {
		return nil, err
	}
	sum := ctx.State().Get().Sum + settled.Amount
	if _, err := programs.Interpreter(ctx, req.Counter).Add(ctx, &chaosv1.AddRequest{Amount: sum}); err != nil {
		return nil, err
	}
	return &chaosv1.RunFlowResponse{Sum: sum}, nil
}

// Settle resolves the promise; asked again, by a caller that did not hear the answer, it has done so.
func (flows) Settle(ctx programs.FlowReadContext, req *chaosv1.SettleRequest) (*chaosv1.SettleResponse, error) {
	err := ctx.Settled().Resolve(ctx, &chaosv1.Settled{Amount: req.Amount})
	if actor.CodeOf(err) == actor.FailedPrecondition {
		return nil, nil
	}
	return nil, err
}
