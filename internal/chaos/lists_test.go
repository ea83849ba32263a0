//go:build unix

package chaos

import (
	"github.com/perdure/perdure/actor"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
	lists "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
)

type listed struct{}

// Append adds a value, and may fail afterwards.
func (listed) Append(ctx lists.ListTxContext, req *chaosv1.AppendRequest) (*chaosv1.AppendResponse, error) {
	state := ctx.State().Get()
	state.Values = append(state.Values, req.Value)
	ctx.State().Set(state)
	if req.Fail {
		return nil, actor.Errorf(actor.Aborted, "on purpose")
	}
	return &chaosv1.AppendResponse{Values: state.Values}, nil
}

func (listed) Get(ctx lists.ListReadContext, _ *chaosv1.GetRequest) (*chaosv1.GetResponse, error) {
	return &chaosv1.GetResponse{Values: ctx.State().Get().Values}, nil
}

type batches struct{}

// Run takes steps in one transaction.
func (batches) Run(ctx actor.Context, req *chaosv1.RunRequest) (*chaosv1.RunResponse, error) {
	var waits []func() (*chaosv1.Saw, error)
	response := &chaosv1.RunResponse{}
	for _, s := range req.Steps {
		waits = append(waits, take(ctx, s))
		if req.Together {
			continue
		}
		saw, err := waits[len(waits)-1]()
		if err != nil {
			return nil, err
		}
		response.Saw = append(response.Saw, saw)
	}
	for _, wait := range waits[len(response.Saw):] {
		saw, err := wait()
		if err != nil {
			return nil, err
		}
		response.Saw = append(response.Saw, saw)
	}
	if req.Fail {
		return nil, actor.Errorf(actor.Aborted, "on purpose")
	}
	return response, nil
}

// take begins a step and returns what waits for it.
func take(ctx actor.Context, s *chaosv1.Step) func() (*chaosv1.Saw, error) {
	if s.Value == 0 {
		got := lists.List(ctx, s.Name).GetAsync(ctx, &chaosv1.GetRequest{})
		return func() (*chaosv1.Saw, error) {
			response, err := got.Await(ctx)
			return &chaosv1.Saw{Values: response.GetValues()}, err
		}
	}
	appended := lists.List(ctx, s.Name).AppendAsync(ctx, &chaosv1.AppendRequest{Value: s.Value, Fail: s.Fail})
	return func() (*chaosv1.Saw, error) {
		response, err := appended.Await(ctx)
		if s.Fail && actor.CodeOf(err) == actor.Aborted {
			return &chaosv1.Saw{Failed: true}, nil
		}
		return &chaosv1.Saw{Values: response.GetValues()}, err
	}
}
