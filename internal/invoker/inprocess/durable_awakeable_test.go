package inprocess_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// TestAwakeableKeepsItsID: the id of an awakeable is the one that it was made with, whether the attempt that
// made it could give it a nonce or not, and whether the one that replays it could. It is in the names of
// steps here, which must replay.
func TestAwakeableKeepsItsID(t *testing.T) {
	const nonce = 0x1b0f1234ff
	durably(t, quiet(), func(d *double) {
		d.crash = always
		d.nonce = func(attempt uint32) uint64 {
			if attempt < 3 || attempt%3 == 0 { // some by a leader that has not heard of the level yet
				return 0
			}
			return nonce
		}
	}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		var ids []string
		for range 8 {
			token := actor.NewAwakeable[string](ctx)
			ids = append(ids, token.ID())
			if err := actor.Do(ctx, token.ID(), func(context.Context) error { return nil }); err != nil {
				return nil, err
			}
		}
		return reply(strings.Join(ids, " ")), nil
	}, nil, func(t *testing.T, d *double, got string) {
		if _, retries := d.attempts(); len(retries) > 0 {
			t.Fatal(retries)
		}
		ids := strings.Fields(got)
		made := map[uint64]int{}
		for i, entry := range d.entries() {
			awakeable, ok := entry.GetEntry().(*recordv1.Entry_Awakeable)
			if !ok {
				continue
			}
			id := invocation.AwakeableID{Invocation: invocation.DerivedID(d.mu.target, "test", "1"), Entry: uint32(i + 1), Nonce: awakeable.Awakeable.GetNonce()}
			if len(ids) == 0 || ids[0] != id.String() {
				t.Fatalf("entry %d is %s; the handler's are %s", i+1, id, ids)
			}
			ids = ids[1:]
			made[id.Nonce]++
		}
		if len(made) != 2 || made[0] == 0 || made[nonce] == 0 || len(ids) > 0 {
			t.Error(fmt.Sprint(made, ids))
		}
	})
}
