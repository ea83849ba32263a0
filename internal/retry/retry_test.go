package retry

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestInterval(t *testing.T) {
	for _, test := range []struct {
		policy   *recordv1.RetryPolicy
		failures uint32
		want     int64
	}{
		{nil, 1, 100}, {nil, 2, 200}, {nil, 10, 51_200}, {nil, 11, 60_000}, {nil, 1 << 31, 60_000},
		{&recordv1.RetryPolicy{InitialIntervalMs: 120_000}, 5, 120_000},
		{&recordv1.RetryPolicy{InitialIntervalMs: 7, Factor: 1}, 1000, 7},
		{&recordv1.RetryPolicy{InitialIntervalMs: 1000, MaxIntervalMs: 2500, Factor: 2}, 3, 2500},
	} {
		if got := Interval(Resolve(test.policy), test.failures); got != test.want {
			t.Errorf("after %d failures by %v: %d ms, want %d", test.failures, test.policy, got, test.want)
		}
	}
	if p := Resolve(&recordv1.RetryPolicy{PauseOnExhausted: true}); p.MaxAttempts != 30 || !p.PauseOnExhausted {
		t.Error(p)
	}
}

func TestLasting(t *testing.T) {
	for ms, want := range map[int64]string{0: "0 s", 1: "1 ms", 1000: "1 s", 1500: "1500 ms", 10_001: "11 s"} {
		if got := Lasting(ms); got != want {
			t.Errorf("%d ms is %q, want %q", ms, got, want)
		}
	}
}

func TestInfo(t *testing.T) {
	for _, ms := range []int64{0, 1, 999, 1000, 61_005} {
		encoded := Info(ms).GetValue() // tag and length of the delay, and the delay
		delay := &durationpb.Duration{}
		if err := proto.Unmarshal(encoded[2:], delay); err != nil || delay.AsDuration().Milliseconds() != ms {
			t.Errorf("%d ms became %s, %v", ms, delay.AsDuration(), err)
		}
	}
}
