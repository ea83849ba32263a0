package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/bench/internal/scale"
	"github.com/perdure/perdure/cluster/membership"
)

// faster is by how much gossip's clocks run fast, so that a minute fits into seconds.
const faster = 4

func gossipTiming() membership.Timing {
	return membership.Timing{
		Probe: time.Second / faster, ProbeTimeout: 500 * time.Millisecond / faster, Gossip: 200 * time.Millisecond / faster,
		Exchange: 10 * time.Second / faster, Rejoin: 10 * time.Second / faster, Alone: time.Second / faster,
		Timeout: 3 * time.Second / faster, Leave: 200 * time.Millisecond,
	}
}

// measureGossip has nodes gossip in this process, each of them leading its share of partitions.
func measureGossip(nodes, partitions int, lasts time.Duration) (scale.Gossip, error) {
	out := scale.Gossip{Nodes: nodes, Partitions: partitions}
	network := membership.NewNetwork(nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	address := func(id int) string { return fmt.Sprintf("192.0.2.%d:7374", id) }
	var all []*membership.Membership
	var heard atomic.Int64 // what others lead, by each node
	for id := 1; id <= nodes; id++ {
		m, err := membership.New(membership.Config{
			NodeID: uint64(id), Bind: address(id), Seeds: []string{address(1)}, Network: network, Timing: gossipTiming(), Logger: quiet(),
			OnShared: func(uint64, string, []byte) { heard.Add(1) },
			Meta: membership.Meta{
				ClusterID: "01890a5d-ac96-774b-bcce-b302099a8057", Partitions: uint32(partitions), Version: "v1.0.0",
				Transport: "192.0.2.100:7375", Ingress: "http://192.0.2.100:7373",
			},
		})
		if err != nil {
			return out, err
		}
		running.Go(func() { _ = m.Run(ctx) })
		<-m.Ready()
		all = append(all, m)
		// As much as partition numbers and terms take.
		if err := m.Share("leaders", bytes.Repeat([]byte{1}, max(1, partitions/nodes*4))); err != nil {
			return out, err
		}
	}
	count := func(m *membership.Membership, state membership.State) (n int) {
		for _, member := range m.Members() {
			if member.State == state {
				n++
			}
		}
		return n
	}
	agreed := func(of []*membership.Membership, number int, state membership.State) func() bool {
		return func() bool {
			for _, m := range of {
				if count(m, state) != number {
					return false
				}
			}
			return true
		}
	}
	began := time.Now()
	if err := until("all nodes to know all", agreed(all, nodes, membership.Alive)); err != nil {
		return out, err
	}
	out.AgreedInSeconds = time.Since(began).Seconds() * faster
	if err := until("all nodes to hear what each leads", func() bool { return heard.Load() >= int64(nodes*(nodes-1)) }); err != nil {
		return out, err
	}
	packets, packetBytes, streamBytes := network.Traffic()
	used := processor()
	began = time.Now()
	time.Sleep(lasts) // what is measured is a stretch of time
	per := 1 / (time.Since(began).Seconds() * faster * float64(nodes))
	out.CPU = (processor() - used).Seconds() * per
	p, pb, sb := network.Traffic()
	out.Packets, out.PacketBytes, out.StreamBytes = float64(p-packets)*per, float64(pb-packetBytes)*per, float64(sb-streamBytes)*per
	began = time.Now()
	network.Crash(address(nodes))
	err := until("a dead node to be noticed", agreed(all[:nodes-1], 1, membership.Dead))
	out.DeadSeconds = time.Since(began).Seconds() * faster
	return out, err
}
