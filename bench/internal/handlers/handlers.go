// Package handlers implements the benchmark's services: as little work as a handler can do and still be durable.
package handlers

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	"github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/bench/gen/smallbank/v1/smallbankv1perdure"
	"github.com/perdure/perdure/bench/gen/ycsb/v1/ycsbv1perdure"
)

// defaultSteps is how many steps Run10 takes when the request does not say.
const defaultSteps = 10

// Register makes r run the benchmark's services.
func Register(r actor.Registrar) {
	benchv1perdure.RegisterCounterHandler(r, counter{})
	benchv1perdure.RegisterStepsHandler(r, steps{})
	benchv1perdure.RegisterAccountHandler(r, account{})
	benchv1perdure.RegisterTransferHandler(r, transfer{})
	benchv1perdure.RegisterFanOutHandler(r, fanOut{})
	smallbankv1perdure.RegisterAccountHandler(r, bankAccount{})
	smallbankv1perdure.RegisterBankHandler(r, bank{})
	ycsbv1perdure.RegisterEntryHandler(r, entry{})
	ycsbv1perdure.RegisterMixHandler(r, mix{})
}

type counter struct{}

func (counter) Add(ctx benchv1perdure.CounterTxContext, req *benchv1.AddRequest) (*benchv1.AddResponse, error) {
	value := ctx.State().Get().GetValue() + req.GetAmount()
	ctx.State().Set(&benchv1.CounterState{Value: value})
	return &benchv1.AddResponse{Value: value}, nil
}

func (counter) Get(ctx benchv1perdure.CounterReadContext, _ *benchv1.GetRequest) (*benchv1.GetResponse, error) {
	return &benchv1.GetResponse{Value: ctx.State().Get().GetValue()}, nil
}

type steps struct{}

func (steps) Run10(ctx actor.Context, req *benchv1.Run10Request) (*benchv1.Run10Response, error) {
	count := req.GetSteps()
	if count == 0 {
		count = defaultSteps
	}
	for i := range count {
		_, err := actor.Run(ctx, fmt.Sprintf("step %d", i), func(context.Context) (uint32, error) { return i, nil })
		if err != nil {
			return nil, err
		}
	}
	return &benchv1.Run10Response{Steps: count}, nil
}
