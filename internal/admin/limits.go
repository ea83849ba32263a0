package admin

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// limits are the limits of a handler as its .proto has them.
func limits(declared []actor.Limit) []*perdurev1.Limit {
	var all []*perdurev1.Limit
	for _, l := range declared {
		out := &perdurev1.Limit{Name: l.Name, By: perdurev1.By(l.By), Concurrency: uint32(l.Concurrency), UntilDone: l.UntilDone}
		if l.Rate.Count > 0 {
			out.Rate = &perdurev1.Rate{Count: uint32(l.Rate.Count), Per: durationpb.New(l.Rate.Per), Burst: uint32(l.Rate.Burst)}
		}
		switch {
		case l.MaxQueue < 0:
			out.MaxQueue = proto.Uint32(0)
		case l.MaxQueue > 0:
			out.MaxQueue = proto.Uint32(uint32(l.MaxQueue))
		}
		all = append(all, out)
	}
	return all
}
