// Package schedule is the life of a schedule: which of its due times fire, when, and what
// becomes of the others. It is pure: the rows come in and go out changed, with the list of what
// to start and to cancel; internal/engine keeps the rows, the timer and the messages.
//
// # Model
//
//	       timer                          overlap policy lets it
//	due ──────────► taken in ──► pending ────────────────────────► fired ──► ended
//	  │                │                                            an invocation
//	  │ node was down  └──► skipped: another firing is under way
//	  └──► missed, or made up for by the misfire policy
//
// A schedule has one timer, at State.WakeAt. Advance takes in what is due and fires what may
// fire; all of that is one record of the log, in which the timer's row is replaced by the next
// one. So a due time is taken in once, whatever crashes. A firing's invocation is named by
// schedule and due time, and tells the schedule once how it ended (Ended).
//
// One call of Advance fires a bounded number; what is left makes the timer due at once.
package schedule

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Overlap is what to do with a due time while another firing is under way. The numbers are
// those of perdure.v1.Overlap.
type Overlap uint32

// The overlap policies; the zero value is OverlapSkip.
const (
	OverlapSkip     Overlap = 1
	OverlapQueueOne Overlap = 2
	OverlapQueueAll Overlap = 3
	OverlapCancel   Overlap = 4
	OverlapAllow    Overlap = 5
)

// Misfire is what to do with due times that were missed. The numbers are those of
// perdure.v1.Misfire.
type Misfire uint32

// The misfire policies; the zero value is MisfireOnce.
const (
	MisfireOnce Misfire = 1
	MisfireAll  Misfire = 2
	MisfireSkip Misfire = 3
)

const (
	// defaultGrace is how late a due time may be, in milliseconds, before it counts as missed.
	defaultGrace = 60_000
	// defaultLimit and MaxMisfires bound what MisfireAll makes up for.
	defaultLimit = 100
	MaxMisfires  = 1000
	// maxPending due times wait; more are skipped.
	maxPending = 1000
	// maxRecent firings and maxRequests request ids are remembered.
	maxRecent   = 10
	maxRequests = 20
	// maxStep firings, or so many bytes of requests, are one record.
	maxStep      = 64
	maxStepBytes = 256 << 10
	// maxTaken due times are looked at in one go.
	maxTaken = 256
	// maxCounted of missed due times are counted one by one.
	maxCounted = 5000
	// maxBackfillRunning firings of a backfill are under way at once where they may overlap.
	maxBackfillRunning = 100
)

// The codes of refusals; the numbers are those of Connect and gRPC.
const (
	codeInvalidArgument    = 3
	codeNotFound           = 5
	codeAlreadyExists      = 6
	codeFailedPrecondition = 9
)

// Refused is why a change was not made.
type Refused struct {
	Code uint32
	Text string
}

// Error is the text for whoever asked.
func (r *Refused) Error() string { return r.Text }

func refuse(code uint32, format string, args ...any) error {
	return &Refused{code, fmt.Sprintf(format, args...)}
}

// Next says when a timetable is due after an instant (milliseconds since 1970 UTC); 0 is never.
type Next func(t *recordv1.Timetable, after int64) (int64, error)

// Schedule is a schedule's rows. Definition is nil if there is none of the name.
type Schedule struct {
	Name       string
	Definition *recordv1.Schedule
	State      *recordv1.ScheduleState
	Next       Next
}

// Step is what a change leads to beside the new State.
type Step struct {
	// Fire are the firings that start.
	Fire []*recordv1.Firing
	// Cancel are the invocations that are asked to stop.
	Cancel []invocation.ID
	// Reply is the firing that a trigger led to, or nil.
	Reply *recordv1.Firing
	// Changed: something is different now. Replaced: the definition is.
	Changed  bool
	Replaced bool
	// Deleted: the schedule is gone.
	Deleted bool
}

// ID names a schedule among invocations: for its timer, and for its partition.
func ID(name string) invocation.ID {
	return invocation.DerivedID(invocation.Target{Service: "perdure.v1.ScheduleService", Key: name}, "schedule")
}

func (s *Schedule) overlap() Overlap {
	if s.Definition.Overlap == 0 {
		return OverlapSkip
	}
	return Overlap(s.Definition.Overlap)
}

// spread is by how much a due time fires late: less than the jitter, and before the next one.
func (s *Schedule) spread(due, next int64) int64 {
	jitter := s.Definition.JitterMs
	if next != 0 {
		jitter = min(jitter, next-due)
	}
	if jitter <= 0 {
		return 0
	}
	id := ID(s.Name)
	hash := xxhash.Sum64(binary.BigEndian.AppendUint64(id[:], uint64(due)))
	return int64(hash % uint64(jitter))
}

// plan makes due the next due time; 0 is none.
func (s *Schedule) plan(due int64) error {
	s.State.NextDue, s.State.NextAt = due, 0
	if due == 0 {
		return nil
	}
	next, err := s.Next(s.Definition.Timetable, due)
	if err != nil {
		return err
	}
	s.State.NextAt = due + s.spread(due, next)
	return nil
}

// planAfter plans the first due time after an instant.
func (s *Schedule) planAfter(after int64) error {
	due, err := s.Next(s.Definition.Timetable, after)
	if err != nil {
		return err
	}
	return s.plan(due)
}

// wake says when the timer must fire next.
func (s *Schedule) wake(now int64) {
	st := s.State
	st.WakeAt = 0
	if !st.Paused && st.NextDue != 0 {
		st.WakeAt = max(st.NextAt, now)
	}
	if s.fires() {
		st.WakeAt = now
	}
}

// Change does what somebody asks for. now is in milliseconds since 1970 UTC; generation is for
// a schedule that comes to be. An error that is not a *Refused means that the rows are bad.
func (s *Schedule) Change(change *recordv1.ScheduleChange, generation uint64, now int64) (Step, error) {
	if put := change.GetPut(); put != nil {
		return s.put(put, generation, now)
	}
	if s.Definition == nil {
		return Step{}, refuse(codeNotFound, "no schedule is called %q", s.Name)
	}
	switch change := change.Change.(type) {
	case *recordv1.ScheduleChange_Delete:
		return s.delete(change.Delete)
	case *recordv1.ScheduleChange_Pause:
		return s.pause(change.Pause, now)
	case *recordv1.ScheduleChange_Resume:
		return s.resume(now)
	case *recordv1.ScheduleChange_Trigger:
		return s.trigger(change.Trigger, now)
	case *recordv1.ScheduleChange_Backfill:
		return s.backfill(change.Backfill, now)
	}
	return Step{}, refuse(codeInvalidArgument, "the change of schedule %q is of a kind that this version does not know", s.Name)
}

// put makes the schedule, or gives it another definition. What was due under the old one is
// taken in first: it stays due.
func (s *Schedule) put(put *recordv1.PutSchedule, generation uint64, now int64) (Step, error) {
	wanted := proto.CloneOf(put.Schedule)
	old := s.Definition
	if old == nil {
		wanted.Generation, wanted.CreatedAt, wanted.UpdatedAt = generation, now, now
		s.Definition = wanted
		s.State = &recordv1.ScheduleState{Name: s.Name, Generation: generation, Paused: wanted.Paused}
		if wanted.Paused {
			s.State.PausedAt = now
		}
		if err := s.planAfter(now); err != nil {
			return Step{}, err
		}
		if s.State.NextDue == 0 {
			return Step{}, refuse(codeInvalidArgument, "schedule %q would never be due: its time is over, or its expression names no day there is", s.Name)
		}
		s.wake(now)
		return Step{Changed: true, Replaced: true}, nil
	}
	wanted.Generation, wanted.CreatedAt, wanted.UpdatedAt = old.Generation, old.CreatedAt, old.UpdatedAt
	if proto.Equal(wanted, old) {
		return Step{}, nil
	}
	switch {
	case put.Create:
		return Step{}, refuse(codeAlreadyExists, "a schedule called %q exists already, and is another: update it, delete it first, or take another name", s.Name)
	case old.Declared && !wanted.Declared:
		return Step{}, refuse(codeFailedPrecondition, "schedule %q is declared in a .proto: change it there; it can be paused, resumed, triggered and backfilled here", s.Name)
	}
	step := Step{Changed: true, Replaced: true}
	if err := s.advance(&step, now); err != nil {
		return Step{}, err
	}
	if due := s.State.NextDue; due != 0 && due <= now && !s.State.Paused { // It is within its jitter.
		if err := s.planAfter(due); err != nil {
			return Step{}, err
		}
		s.offer(&step, &recordv1.Firing{DueAt: due, Origin: recordv1.Origin_ORIGIN_DUE})
	}
	wanted.UpdatedAt = now
	s.Definition = wanted
	if !proto.Equal(wanted.Timetable, old.Timetable) || wanted.JitterMs != old.JitterMs {
		if err := s.planAfter(now); err != nil {
			return Step{}, err
		}
	}
	s.wake(now)
	return step, nil
}

func (s *Schedule) delete(request *recordv1.DeleteSchedule) (Step, error) {
	switch {
	case request.Undeclared && !s.Definition.Declared:
		return Step{}, nil
	case s.Definition.Declared && !request.Undeclared:
		return Step{}, refuse(codeFailedPrecondition, "schedule %q is declared in a .proto: take it out there, or pause it here", s.Name)
	}
	return Step{Changed: true, Deleted: true}, nil
}
