package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// followEvery is how often a node is asked what is new.
const followEvery = 500 * time.Millisecond

// waitToFollow is false when the command was interrupted.
func waitToFollow(ctx context.Context) bool {
	timer := time.NewTimer(followEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// printLine prints a message as JSON on one line.
func (c *cli) printLine(message proto.Message) error {
	text, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	compact, err := json.Marshal(json.RawMessage(text))
	if err != nil {
		return err
	}
	c.printf("%s\n", compact)
	return nil
}

// occurrence is something that happened to an invocation.
type occurrence struct {
	at   time.Time
	text string
}

// followInvocation prints what happens to an invocation until it has ended.
func (c *cli) followInvocation(ctx context.Context, id string) error {
	told := map[string]bool{}
	var before string
	for {
		found, err := c.fetchInvocation(ctx, id, 1<<30)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		inv := found.GetInvocation()
		if c.output == "json" {
			if now := inv.String(); now != before {
				before = now
				if err := c.printLine(inv); err != nil {
					return err
				}
			}
		} else {
			if before == "" {
				c.printf("%s %s (%s)\n", c.strong(inv.GetId()), targetName(inv.GetTarget()), inv.GetMode())
			}
			for _, o := range occurrences(found) {
				if key := o.at.String() + o.text; !told[key] {
					told[key] = true
					c.printf("  +%-8s  %s\n", short(o.at.Sub(inv.GetCreatedAt().AsTime())), printable(o.text))
				}
			}
			if status := standing(inv); status != before {
				before = status
				c.printf("  %-9s  is %s\n", "", printable(status))
			}
		}
		if inv.GetCompletedAt() != nil || !waitToFollow(ctx) {
			return nil
		}
	}
}

// standing is where an invocation stands, with why.
func standing(inv *adminv1.Invocation) string {
	text := statusName(inv.GetStatus())
	switch {
	case inv.GetError() != nil:
		text += ": " + errorText(inv)
	case inv.GetStatus() == adminv1.InvocationStatus_INVOCATION_STATUS_BACKING_OFF:
		text += fmt.Sprintf(" until %s, after %s", instant(inv.GetRetryAt()), errorName(inv.GetLastFailure()))
	case waitingFor(inv) != "":
		text += ", waits for " + waitingFor(inv)
	}
	if inv.GetAttempt() > 1 {
		text += fmt.Sprintf(" (attempt %d)", inv.GetAttempt())
	}
	return text
}

// occurrences are what the journal and the failures say, in the order of time.
func occurrences(found *adminv1.GetInvocationResponse) []occurrence {
	var all []occurrence
	for _, entry := range found.GetJournal() {
		name := fmt.Sprintf("#%d %s", entry.GetIndex(), entry.GetKind())
		if entry.GetName() != "" {
			name += " " + entry.GetName()
		}
		site := ""
		if entry.GetSite() != "" {
			site = ", at " + entry.GetSite()
		}
		all = append(all, occurrence{entry.GetAt().AsTime(), name + site})
		if took(entry) != "-" {
			all = append(all, occurrence{entry.GetCompletedAt().AsTime(), fmt.Sprintf("%s: %s after %s", name, outcome(entry, false), took(entry))})
		}
	}
	for _, failed := range found.GetInvocation().GetFailures() {
		if !failed.GetTerminal() {
			all = append(all, occurrence{failed.GetAt().AsTime(), fmt.Sprintf("attempt %d failed: %s", failed.GetAttempt(), errorName(failed.GetError()))})
		}
	}
	slices.SortStableFunc(all, func(a, b occurrence) int { return a.at.Compare(b.at) })
	return all
}

// followList prints invocations that are new, or whose status is, until it is interrupted.
func (c *cli) followList(ctx context.Context, fetch func() (*adminv1.ListInvocationsResponse, error)) error {
	seen := map[string]string{}
	for {
		found, err := fetch()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		slices.Reverse(found.GetInvocations()) // oldest first, as they happened
		now := map[string]string{}
		for _, inv := range found.GetInvocations() {
			state := fmt.Sprintf("%s %d", inv.GetStatus(), inv.GetAttempt())
			now[inv.GetId()] = state
			if seen[inv.GetId()] == state {
				continue
			}
			if c.output == "json" {
				if err := c.printLine(inv); err != nil {
					return err
				}
				continue
			}
			c.printf("%s  %-43s  %-11s  %-2d  %s\n", instant(inv.GetCreatedAt()), inv.GetId(), statusName(inv.GetStatus()), inv.GetAttempt(), printable(targetName(inv.GetTarget())))
		}
		seen = now // What the list has no more is forgotten: it would grow for ever.
		if !waitToFollow(ctx) {
			return nil
		}
	}
}
