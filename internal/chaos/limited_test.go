//go:build unix

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
)

// limited works where it can be seen.
type limited struct{ effects effects }

// Work sleeps between two runs, so that it is in the middle of its life for a while.
func (l limited) Work(ctx actor.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	half := time.Duration(req.LastsMs) * time.Millisecond / 2
	for part := range 2 {
		if err := actor.Do(ctx, fmt.Sprint("part ", part), func(context.Context) error {
			if err := l.effects.note("+ %d %s", os.Getpid(), req.Id); err != nil {
				return err
			}
			time.Sleep(half)
			return l.effects.note("- %d %s", os.Getpid(), req.Id)
		}); err != nil {
			return nil, err
		}
	}
	return &chaosv1.WorkResponse{}, nil
}

// TestLimitsOutliveKills: a node that is killed again and again, while an operator changes what its limits let,
// never runs more at once than they let, and what was accepted is done.
func TestLimitsOutliveKills(t *testing.T) {
	t.Parallel()
	random := choices(t)
	count, kills := 600, 6
	if testing.Short() || raced {
		count, kills = 200, 3
	}
	outside := filepath.Join(t.TempDir(), "effects")
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8, EffectsFile: outside, InactivityTimeout: time.Millisecond})
	n.start()
	const keys = 5
	client := &http.Client{Timeout: 20 * time.Second}
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for number := sender; number < count; number += 8 {
				got, err := n.post(t.Context(), client, "/chaos.v1.LimitedService/Work", fmt.Sprintf(`{"id":"w%d","lastsMs":"%d"}`, number, number%20),
					"Idempotency-Key", fmt.Sprint(number), "Perdure-Send", "1", "Perdure-Limit-Key", fmt.Sprint("key-", number%keys), "Perdure-Tenant", fmt.Sprint("t", number%2))
				if err != nil || got.status != http.StatusOK {
					t.Errorf("%d: %v %s", number, err, got.body)
					return
				}
			}
		})
	}
	senders.Wait()
	if t.Failed() {
		return
	}
	rule := func(method, body string) {
		t.Helper()
		got, err := n.post(t.Context(), client, "/perdure.admin.v1.AdminService/"+method, body)
		if err != nil || got.status != http.StatusOK || strings.Contains(got.body, "missing") {
			t.Errorf("%s: %v %d %s", method, err, got.status, got.body)
		}
	}
	for kill := range kills {
		time.Sleep(upTo(random, 300*time.Millisecond)) // so that kills fall anywhere
		switch kill % 3 {
		case 0:
			rule("SetLimitRules", `{"rules":[{"name":"chaos.v1.LimitedService/three","concurrency":2}]}`)
		case 2:
			rule("RemoveLimitRules", `{"names":["chaos.v1.LimitedService/three"]}`)
		}
		n.kill()
		n.start()
	}
	done := func(number int) { // The same call again waits for its result.
		got, err := n.post(t.Context(), client, "/chaos.v1.LimitedService/Work", fmt.Sprintf(`{"id":"w%d","lastsMs":"%d"}`, number, number%20),
			"Idempotency-Key", fmt.Sprint(number), "Perdure-Limit-Key", fmt.Sprint("key-", number%keys))
		if err != nil || got.status != http.StatusOK {
			t.Errorf("%d: %v %s", number, err, got.body)
		}
	}
	for number := range count {
		done(number)
	}
	// Nobody holds a permit any more: what comes by the last rule, which a kill follows at once, runs one by one.
	rule("SetLimitRules", `{"rules":[{"name":"chaos.v1.LimitedService/three","concurrency":1}]}`)
	n.kill()
	n.start()
	late := count
	count += 40
	for number := late; number < count; number++ {
		senders.Go(func() { done(number) })
	}
	senders.Wait()
	text, err := os.ReadFile(outside)
	if err != nil {
		t.Fatal(err)
	}
	inside, most, ended, process := map[string]int{}, 0, map[string]int{}, ""
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if words[1] != process { // The one before was killed with all that was inside.
			process, inside = words[1], map[string]int{}
		}
		var number int
		if _, err := fmt.Sscanf(words[2], "w%d", &number); err != nil {
			t.Fatalf("%q", line)
		}
		key := fmt.Sprint("key-", number%keys)
		if words[0] == "-" {
			inside["all"]--
			inside[key]--
			if number >= late {
				inside["late"]--
			}
			ended[words[2]]++
			continue
		}
		inside["all"]++
		inside[key]++
		if number >= late {
			inside["late"]++
		}
		most = max(most, inside["all"])
		if inside["all"] > 3 || inside[key] > 1 || inside["late"] > 1 {
			t.Fatalf("%s: %d run at once, %d of its key, %d under the last rule", strings.TrimSpace(line), inside["all"], inside[key], inside["late"])
		}
	}
	if len(ended) != count {
		t.Errorf("%d of %d were done", len(ended), count)
	}
	if most != 3 {
		t.Errorf("no more than %d ever ran at once", most)
	}
	got, err := n.post(t.Context(), client, "/perdure.admin.v1.AdminService/ListLimits", `{}`)
	if err != nil || strings.Contains(got.body, `"held"`) || strings.Contains(got.body, `"waiting"`) {
		t.Errorf("at the end: %v %s", err, got.body)
	}
}
