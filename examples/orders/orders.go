package main

import (
	"context"
	"time"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

// Mailer sends mail. It may be asked twice for the same mail: Run closures happen at least once.
type Mailer interface {
	Send(ctx context.Context, to, text string) error
}

// Orders implements shop.OrderHandler.
type Orders struct {
	Mail            Mailer
	ApprovalTimeout time.Duration
}

// Run is a saga: reserve, pay, wait for approval, wait for a courier. It may take days; the
// node may restart in between. When it fails, what was done is undone, last first.
func (o Orders) Run(ctx shop.OrderRunContext, req *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	response, err := o.run(ctx, req)
	if err != nil {
		phase(ctx, "failed")
	}
	return response, err
}

func (o Orders) run(ctx shop.OrderRunContext, req *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	var saga actor.Saga

	phase(ctx, "reserving")
	item := shop.Inventory(ctx, req.GetSku())
	_, err := item.Reserve(ctx, shopv1.ReserveRequest_builder{OrderId: new(ctx.Key()), Quantity: new(req.GetQuantity())}.Build())
	if err != nil {
		return nil, err
	}
	saga.Add(func(c context.Context) error {
		_, err := item.Release(c, shopv1.ReleaseRequest_builder{OrderId: new(ctx.Key())}.Build())
		return err
	})

	phase(ctx, "paying")
	customer := bank.Account(ctx, req.GetCustomer())
	if _, err = customer.Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.GetPrice()}); err != nil {
		return nil, saga.Fail(ctx, err)
	}
	saga.Add(func(c context.Context) error {
		_, err := customer.Deposit(c, &bankv1.DepositRequest{Amount: req.GetPrice()})
		return err
	})

	phase(ctx, "waiting for approval")
	approved := ctx.Approve().ReceiveAsync(ctx)
	which, err := actor.Select(ctx, approved, actor.After(ctx, o.ApprovalTimeout))
	if err != nil { // cancelled
		return nil, saga.Fail(ctx, err)
	}
	if which == 1 {
		return nil, saga.Fail(ctx, actor.Errorf(actor.DeadlineExceeded, "not approved in %s", o.ApprovalTimeout))
	}
	decision, err := approved.Await(ctx)
	if err != nil {
		return nil, saga.Fail(ctx, err)
	}
	if !decision.GetOk() {
		return nil, saga.Fail(ctx, actor.Errorf(actor.Aborted, "turned down by %s", decision.GetBy()))
	}

	phase(ctx, "waiting for courier")
	courier, err := ctx.Courier().Await(ctx)
	if err != nil {
		return nil, saga.Fail(ctx, err)
	}
	err = actor.Do(ctx, "mail", func(c context.Context) error {
		return o.Mail.Send(c, req.GetCustomer(), "on its way: "+ctx.Key())
	})
	if err != nil { // An order is not undone because a mail was not sent.
		ctx.Logger().Warn("no mail", "error", err)
	}
	phase(ctx, "shipped")
	return shopv1.RunResponse_builder{Outcome: new("shipped"), Courier: new(courier.GetCourier())}.Build(), nil
}

func phase(ctx shop.OrderRunContext, name string) {
	ctx.State().Update(func(s *shopv1.OrderState) { s.SetPhase(name) })
}

// AssignCourier resolves the promise that Run waits for, after a check.
func (Orders) AssignCourier(ctx shop.OrderReadContext, req *shopv1.AssignCourierRequest) (*shopv1.AssignCourierResponse, error) {
	if req.GetCourier() == "" {
		return nil, actor.Errorf(actor.InvalidArgument, "courier is empty")
	}
	return nil, ctx.Courier().Resolve(ctx, shopv1.CourierAssigned_builder{Courier: new(req.GetCourier())}.Build())
}

// Status reads the run's state while it runs.
func (Orders) Status(ctx shop.OrderReadContext, _ *shopv1.StatusRequest) (*shopv1.StatusResponse, error) {
	return shopv1.StatusResponse_builder{Phase: new(ctx.State().Get().GetPhase())}.Build(), nil
}
