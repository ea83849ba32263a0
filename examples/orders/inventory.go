package main

import (
	"github.com/perdure/perdure/actor"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

// Inventory implements shop.InventoryHandler. Its messages have the opaque Go API.
type Inventory struct{}

// Reserve sets items aside for an order; doing it again changes nothing.
func (Inventory) Reserve(ctx shop.InventoryTxContext, req *shopv1.ReserveRequest) (*shopv1.ReserveResponse, error) {
	state := ctx.State().Get()
	if _, again := state.GetReserved()[req.GetOrderId()]; again {
		return nil, nil
	}
	if state.GetOnHand() < req.GetQuantity() {
		return nil, actor.Errorf(actor.ResourceExhausted, "only %d of %s", state.GetOnHand(), ctx.Key())
	}
	ctx.State().Update(func(s *shopv1.InventoryState) {
		s.SetOnHand(s.GetOnHand() - req.GetQuantity())
		if s.GetReserved() == nil {
			s.SetReserved(map[string]int64{})
		}
		s.GetReserved()[req.GetOrderId()] = req.GetQuantity()
	})
	return nil, nil
}

// Release gives back what was set aside for an order.
func (Inventory) Release(ctx shop.InventoryTxContext, req *shopv1.ReleaseRequest) (*shopv1.ReleaseResponse, error) {
	ctx.State().Update(func(s *shopv1.InventoryState) {
		s.SetOnHand(s.GetOnHand() + s.GetReserved()[req.GetOrderId()])
		delete(s.GetReserved(), req.GetOrderId())
	})
	return nil, nil
}

// Stock adds items.
func (Inventory) Stock(ctx shop.InventoryTxContext, req *shopv1.StockRequest) (*shopv1.StockResponse, error) {
	ctx.State().Update(func(s *shopv1.InventoryState) { s.SetOnHand(s.GetOnHand() + req.GetQuantity()) })
	return nil, nil
}

// Available tells how many items are left.
func (Inventory) Available(ctx shop.InventoryReadContext, _ *shopv1.AvailableRequest) (*shopv1.AvailableResponse, error) {
	return shopv1.AvailableResponse_builder{OnHand: new(ctx.State().Get().GetOnHand())}.Build(), nil
}
