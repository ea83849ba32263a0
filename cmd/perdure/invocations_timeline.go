package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// barWidth is how many columns stand for the whole life of an invocation.
const barWidth = 20

// timelineRow is a step, or an attempt that failed.
type timelineRow struct {
	at    time.Time
	cells []string
	below []string
}

// printTimeline prints the steps and the failures in the order of time.
func (c *cli) printTimeline(found *adminv1.GetInvocationResponse, values bool) {
	inv := found.GetInvocation()
	if len(found.GetJournal()) == 0 && len(inv.GetFailures()) == 0 {
		return
	}
	life := lifespanOf(found)
	ended := inv.GetCompletedAt() != nil
	var rows []timelineRow
	for _, entry := range found.GetJournal() {
		row := timelineRow{at: entry.GetAt().AsTime(), cells: []string{
			strconv.Itoa(int(entry.GetIndex())), "+" + between(inv.GetCreatedAt(), entry.GetAt()), life.bar(entry, ended), entry.GetKind(),
			orDash(entry.GetName()), orDash(entry.GetSite()), took(entry), outcome(entry, ended),
		}}
		if values {
			row.below = given(entry)
		}
		rows = append(rows, row)
	}
	for _, failed := range inv.GetFailures() {
		kind := fmt.Sprintf("attempt %d", failed.GetAttempt())
		if failed.GetTerminal() {
			kind = "result"
		}
		rows = append(rows, timelineRow{at: failed.GetAt().AsTime(), cells: []string{
			"×", "+" + between(inv.GetCreatedAt(), failed.GetAt()), life.mark(failed.GetAt()), kind,
			orDash(afterEntry(failed)), orDash(failed.GetSite()), "-", "failed: " + errorName(failed.GetError()),
		}})
	}
	slices.SortStableFunc(rows, func(a, b timelineRow) int { return a.at.Compare(b.at) })
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = row.cells
	}
	c.printf("\n")
	header := []string{"#", "AT", "WHEN", "KIND", "NAME", "SITE", "TOOK", "OUTCOME"}
	c.tableWith("  ", header, cells, func(i int) []string { return rows[i].below })
	if found.GetNextPageToken() != "" {
		c.note("… and more entries: raise --entries above %d", len(found.GetJournal()))
	}
}

// afterEntry says where in the journal an attempt failed.
func afterEntry(failed *adminv1.Failure) string {
	if failed.GetEntry() == 0 {
		return ""
	}
	return fmt.Sprintf("at entry %d: %s", failed.GetEntry(), failed.GetStep())
}

// lifespan is the time that the bars stand for.
type lifespan struct{ from, to time.Time }

// lifespanOf ends with the invocation, or with the last thing that is known of it.
func lifespanOf(found *adminv1.GetInvocationResponse) lifespan {
	inv := found.GetInvocation()
	s := lifespan{from: inv.GetCreatedAt().AsTime()}
	if inv.GetCompletedAt() != nil {
		s.to = inv.GetCompletedAt().AsTime()
		return s
	}
	for _, at := range []*timestamppb.Timestamp{inv.GetStartedAt(), inv.GetRetryAt()} {
		s.reach(at)
	}
	for _, entry := range found.GetJournal() {
		s.reach(entry.GetAt())
		s.reach(entry.GetCompletedAt())
	}
	for _, failed := range inv.GetFailures() {
		s.reach(failed.GetAt())
	}
	return s
}

func (s *lifespan) reach(at *timestamppb.Timestamp) {
	if at != nil && at.AsTime().After(s.to) {
		s.to = at.AsTime()
	}
}

// column is where an instant lies.
func (s lifespan) column(at time.Time) int {
	whole := s.to.Sub(s.from)
	if whole <= 0 {
		return 0
	}
	return min(max(int(float64(at.Sub(s.from))/float64(whole)*barWidth), 0), barWidth-1)
}

func (s lifespan) bar(entry *adminv1.JournalEntry, ended bool) string {
	from := s.column(entry.GetAt().AsTime())
	to, end := from, ""
	switch {
	case entry.GetCompletedAt() != nil:
		to = max(s.column(entry.GetCompletedAt().AsTime()), from)
	case !ended:
		to, end = barWidth-1, "▸"
	}
	return pad(strings.Repeat(" ", from) + strings.Repeat("█", max(to-from+1-len([]rune(end)), 0)) + end)
}

func (s lifespan) mark(at *timestamppb.Timestamp) string {
	return pad(strings.Repeat(" ", s.column(at.AsTime())) + "×")
}

// pad keeps the bars' right edge where it is.
func pad(bar string) string {
	return "│" + bar + strings.Repeat(" ", max(barWidth-len([]rune(bar)), 0)) + "│"
}

func failedAttempts(inv *adminv1.Invocation) string {
	switch {
	case inv.GetFailedAttempts() == 0:
		return ""
	case inv.GetMaxAttempts() == 0:
		return strconv.Itoa(int(inv.GetFailedAttempts()))
	}
	return fmt.Sprintf("%d; %d in a row, of %d that may be", inv.GetFailedAttempts(), inv.GetFailuresInRow(), inv.GetMaxAttempts())
}

// errorText is the error that an invocation ended with, and where in its journal that was.
func errorText(inv *adminv1.Invocation) string { return failureText(inv, inv.GetError(), true) }

// lastFailure is that of the newest attempt that failed without being the end.
func lastFailure(inv *adminv1.Invocation) string {
	return failureText(inv, inv.GetLastFailure(), false)
}

// failureText is an error with the entry of the newest failure of its kind.
func failureText(inv *adminv1.Invocation, failure *adminv1.Error, terminal bool) string {
	text := errorName(failure)
	for _, failed := range slices.Backward(inv.GetFailures()) {
		if failed.GetTerminal() != terminal {
			continue
		}
		if where := afterEntry(failed); text != "" && where != "" {
			text += " (" + where + ")"
		}
		break
	}
	return text
}

func waitingFor(inv *adminv1.Invocation) string {
	waits := inv.GetWaitingFor()
	if len(waits) == 0 || inv.GetStatus() != adminv1.InvocationStatus_INVOCATION_STATUS_SUSPENDED {
		return ""
	}
	if inv.GetAttempt() == 0 { // One that was restarted and has not begun.
		return "its journal, which is being copied"
	}
	var names []string
	for _, index := range waits[:min(len(waits), 10)] {
		names = append(names, strconv.Itoa(int(index)))
	}
	if more := len(waits) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return "entry " + strings.Join(names, ", ")
}

func deadline(inv *adminv1.Invocation) string {
	if inv.GetCompletedAt() != nil {
		return ""
	}
	return set(inv.GetDeadline())
}

func restartedFrom(inv *adminv1.Invocation) string {
	text := inv.GetRestartedFromInvocationId()
	if text != "" && inv.GetRestartedEntries() > 0 {
		text += fmt.Sprintf(", keeping its journal up to entry %d", inv.GetRestartedEntries())
	}
	return text
}
