package schedule

import (
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// pause keeps due times from firing. Those that wait for another firing are skipped; triggers
// and backfills go on, for somebody asked for them.
func (s *Schedule) pause(request *recordv1.PauseSchedule, now int64) (Step, error) {
	st := s.State
	if st.Paused && (request.Note == "" || request.Note == st.Note) {
		return Step{}, nil
	}
	var step Step
	if !st.Paused {
		if err := s.advance(&step, now); err != nil {
			return Step{}, err
		}
		if st.NextDue != 0 && st.NextDue <= now { // It is within its jitter.
			st.Skipped++
		}
		st.PausedAt = now
	}
	before := len(st.Pending)
	st.Pending = slices.DeleteFunc(st.Pending, func(f *recordv1.Firing) bool {
		return f.Origin == recordv1.Origin_ORIGIN_DUE || f.Origin == recordv1.Origin_ORIGIN_MISFIRE
	})
	st.Skipped += uint64(before - len(st.Pending))
	st.Paused, st.Note = true, request.Note
	s.wake(now)
	step.Changed = true
	return step, nil
}

// resume goes on with the next due time. Those that passed meanwhile are over.
func (s *Schedule) resume(now int64) (Step, error) {
	st := s.State
	if !st.Paused {
		return Step{}, nil
	}
	st.Paused, st.Note, st.PausedAt = false, "", 0
	if err := s.planAfter(now); err != nil {
		return Step{}, err
	}
	s.wake(now)
	return Step{Changed: true}, nil
}

// remember reports whether a request with an id was made before, and notes it.
func (s *Schedule) remember(request string) (before bool) {
	if request == "" {
		return false
	}
	if slices.Contains(s.State.Requests, request) {
		return true
	}
	s.State.Requests = slices.Insert(s.State.Requests, 0, request)
	s.State.Requests = s.State.Requests[:min(len(s.State.Requests), maxRequests)]
	return false
}

// trigger fires once, now. Paused or not: somebody asks for it.
func (s *Schedule) trigger(request *recordv1.TriggerSchedule, now int64) (Step, error) {
	st := s.State
	if request.RequestId == "" {
		return Step{}, refuse(codeInvalidArgument, "a trigger of schedule %q has no request id", s.Name)
	}
	if slices.Contains(st.Requests, request.RequestId) {
		for _, f := range slices.Concat(st.Pending, st.Recent) {
			if f.RequestId == request.RequestId && f.Origin == recordv1.Origin_ORIGIN_TRIGGER {
				return Step{Reply: f}, nil
			}
		}
		return Step{}, nil // It was made long ago.
	}
	step := Step{Changed: true}
	f := &recordv1.Firing{DueAt: now, Origin: recordv1.Origin_ORIGIN_TRIGGER, RequestId: request.RequestId, Overlaps: request.Overlaps}
	switch {
	case request.Overlaps:
		st.Pending = slices.Insert(st.Pending, 0, f)
	case s.busy() && s.overlap() == OverlapSkip:
		return Step{}, refuse(codeFailedPrecondition,
			"schedule %q has a firing under way, and its overlap policy is to skip: wait for its end, cancel it, or trigger with overlaps set", s.Name)
	case len(st.Pending) >= maxPending:
		return Step{}, refuse(codeFailedPrecondition, "schedule %q has %d firings waiting, the most there may be", s.Name, maxPending)
	default:
		if s.overlap() == OverlapCancel {
			s.cancelRunning(&step)
		}
		st.Pending = append(st.Pending, f)
	}
	s.remember(request.RequestId)
	if err := s.advance(&step, now); err != nil {
		return Step{}, err
	}
	step.Reply = f
	return step, nil
}

// backfill fires the due times of a range again or for the first time, one after the other
// unless firings may overlap; or ends what another one has left to do.
func (s *Schedule) backfill(request *recordv1.BackfillSchedule, now int64) (Step, error) {
	st := s.State
	if request.RequestId == "" {
		return Step{}, refuse(codeInvalidArgument, "a backfill of schedule %q has no request id", s.Name)
	}
	if slices.Contains(st.Requests, request.RequestId) {
		return Step{}, nil
	}
	if request.Stop {
		s.remember(request.RequestId)
		st.Backfill = nil
		step := Step{Changed: true}
		return step, s.advance(&step, now)
	}
	switch {
	case request.From > request.Until:
		return Step{}, refuse(codeInvalidArgument, "a backfill of schedule %q ends before it begins", s.Name)
	case request.Until > now:
		return Step{}, refuse(codeInvalidArgument, "a backfill of schedule %q ends in the future: due times that are still to come fire by themselves", s.Name)
	case st.Backfill != nil:
		return Step{}, refuse(codeFailedPrecondition, "schedule %q has a backfill under way: wait for its end, or stop it", s.Name)
	}
	first, err := s.Next(s.Definition.Timetable, request.From-1)
	if err != nil {
		return Step{}, err
	}
	if first == 0 || first > request.Until {
		return Step{}, refuse(codeInvalidArgument, "schedule %q has no due time in the range to backfill", s.Name)
	}
	s.remember(request.RequestId)
	st.Backfill = &recordv1.Backfill{RequestId: request.RequestId, NextDue: first, Until: request.Until}
	step := Step{Changed: true}
	return step, s.advance(&step, now)
}
