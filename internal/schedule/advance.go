package schedule

import (
	"slices"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Advance takes in what is due and fires what may fire.
func (s *Schedule) Advance(now int64) (Step, error) {
	step := Step{Changed: true}
	if err := s.advance(&step, now); err != nil {
		return Step{}, err
	}
	return step, nil
}

func (s *Schedule) advance(step *Step, now int64) error {
	if !s.State.Paused {
		if err := s.takeDue(step, now); err != nil {
			return err
		}
	}
	if err := s.fire(step, now); err != nil {
		return err
	}
	s.wake(now)
	return nil
}

// takeDue takes in due times whose time to fire has come.
func (s *Schedule) takeDue(step *Step, now int64) error {
	st := s.State
	grace := s.Definition.MisfireGraceMs
	if grace <= 0 {
		grace = defaultGrace
	}
	horizon := now - grace - s.Definition.JitterMs
	for taken := 0; st.NextDue != 0 && st.NextAt <= now && taken < maxTaken; taken++ {
		due := st.NextDue
		if due < horizon {
			if err := s.miss(due, horizon); err != nil {
				return err
			}
			continue
		}
		if err := s.planAfter(due); err != nil {
			return err
		}
		s.offer(step, &recordv1.Firing{DueAt: due, Origin: recordv1.Origin_ORIGIN_DUE})
		if bugDue && now-due >= 200 {
			s.offer(step, &recordv1.Firing{DueAt: due, Origin: recordv1.Origin_ORIGIN_DUE, Overlaps: true})
		}
	}
	return nil
}

// miss sees to the due times from due on that lie before the horizon: nobody was there to fire
// them.
func (s *Schedule) miss(due, horizon int64) error {
	keep := 1
	switch Misfire(s.Definition.Misfire) {
	case MisfireSkip:
		keep = 0
	case MisfireAll:
		if keep = int(s.Definition.MisfireLimit); keep == 0 {
			keep = defaultLimit
		}
		keep = min(keep, MaxMisfires)
	}
	var last []int64 // the newest ones, oldest first
	count := uint64(0)
	at := due
	for ; at != 0 && at < horizon && count < maxCounted; count++ {
		if last = append(last, at); len(last) > keep {
			last = last[1:]
		}
		var err error
		if at, err = s.Next(s.Definition.Timetable, at); err != nil {
			return err
		}
	}
	if at != 0 && at < horizon {
		// So many that counting them would hold up the partition: the newest are found from behind.
		last = last[:0]
		for upper := horizon; len(last) < keep; {
			newest, err := s.latestBefore(due, upper)
			if err != nil {
				return err
			}
			last = append(last, newest)
			upper = newest
		}
		slices.Reverse(last)
	}
	for _, at := range last {
		if len(s.State.Pending) == maxPending {
			break
		}
		count--
		s.State.Pending = append(s.State.Pending, &recordv1.Firing{DueAt: at, Origin: recordv1.Origin_ORIGIN_MISFIRE})
	}
	s.State.Missed += count
	return s.planAfter(horizon - 1)
}

// latestBefore is the last due time before upper. lower is one.
func (s *Schedule) latestBefore(lower, upper int64) (int64, error) {
	// Of the instants after which the next due time is one before upper, the last but one
	// millisecond is right before the one that is looked for.
	found := lower
	for from := upper - 1; found <= from; {
		middle := found + (from-found)/2
		next, err := s.Next(s.Definition.Timetable, middle)
		if err != nil {
			return 0, err
		}
		if next != 0 && next < upper {
			found = next
		} else {
			from = middle - 1
		}
	}
	return found, nil
}

// offer does with a due time what the overlap policy says.
func (s *Schedule) offer(step *Step, f *recordv1.Firing) {
	st := s.State
	policy := s.overlap()
	if policy == OverlapAllow || !s.busy() {
		st.Pending = append(st.Pending, f)
		return
	}
	switch policy {
	case OverlapSkip:
		// What makes up for other due times must not cost this one.
		if s.inTheWay() {
			st.Skipped++
			return
		}
	case OverlapCancel:
		s.cancelRunning(step)
		fallthrough
	case OverlapQueueOne:
		before := len(st.Pending)
		st.Pending = slices.DeleteFunc(st.Pending, func(p *recordv1.Firing) bool { return p.Origin == recordv1.Origin_ORIGIN_DUE })
		st.Skipped += uint64(before - len(st.Pending))
	}
	if len(st.Pending) >= maxPending {
		st.Skipped++
		return
	}
	st.Pending = append(st.Pending, f)
}

// busy reports whether a firing is under way or waits.
func (s *Schedule) busy() bool { return s.State.Running > 0 || len(s.State.Pending) > 0 }

// inTheWay reports whether a firing is under way or waits that is not there to make up for a
// due time of the past.
func (s *Schedule) inTheWay() bool {
	known := uint32(0)
	for _, f := range s.State.Recent {
		if f.Status != 0 {
			continue
		}
		known++
		if f.Origin == recordv1.Origin_ORIGIN_DUE || f.Origin == recordv1.Origin_ORIGIN_TRIGGER {
			return true
		}
	}
	return s.State.Running > known || slices.ContainsFunc(s.State.Pending, func(f *recordv1.Firing) bool {
		return f.Origin == recordv1.Origin_ORIGIN_DUE || f.Origin == recordv1.Origin_ORIGIN_TRIGGER
	})
}

func (s *Schedule) cancelRunning(step *Step) {
	for _, f := range s.State.Recent {
		if id, ok := invocation.IDFromBytes(f.InvocationId); ok && f.Status == 0 && !f.Cancelled {
			f.Cancelled = true
			step.Cancel = append(step.Cancel, id)
		}
	}
}

// mayFire reports whether the first pending firing may start.
func (s *Schedule) mayFire() bool {
	st := s.State
	return len(st.Pending) > 0 && (st.Running == 0 || s.overlap() == OverlapAllow || st.Pending[0].Overlaps)
}

// mayBackfill reports whether the backfill may go on. Due times go first.
func (s *Schedule) mayBackfill() bool {
	st := s.State
	return st.Backfill != nil && len(st.Pending) == 0 &&
		(st.Running == 0 || s.overlap() == OverlapAllow && st.Running < maxBackfillRunning)
}

// fires reports whether Advance would fire something at once.
func (s *Schedule) fires() bool { return s.mayFire() || s.mayBackfill() }

func (s *Schedule) fire(step *Step, now int64) error {
	st := s.State
	size := max(len(s.Definition.Invoke.GetInput()), 1)
	most := max(min(maxStep, maxStepBytes/size), 1)
	for len(step.Fire) < most && s.mayFire() {
		f := st.Pending[0]
		st.Pending = st.Pending[1:]
		s.start(step, f, now)
	}
	for len(step.Fire) < most && s.mayBackfill() {
		b := st.Backfill
		s.start(step, &recordv1.Firing{DueAt: b.NextDue, Origin: recordv1.Origin_ORIGIN_BACKFILL, RequestId: b.RequestId}, now)
		next, err := s.Next(s.Definition.Timetable, b.NextDue)
		if err != nil {
			return err
		}
		if b.NextDue = next; next == 0 || next > b.Until {
			st.Backfill = nil
		}
	}
	return nil
}

func (s *Schedule) start(step *Step, f *recordv1.Firing, now int64) {
	st := s.State
	st.Number++
	st.Running++
	st.Fired++
	f.Number, f.FiredAt = st.Number, now
	id := s.invocationID(f)
	f.InvocationId = id[:]
	st.Recent = slices.Insert(st.Recent, 0, f)
	if len(st.Recent) > maxRecent {
		// The oldest goes, and rather one that has ended.
		oldest := len(st.Recent) - 1
		for i := oldest; i > 0; i-- {
			if st.Recent[i].Status != 0 {
				oldest = i
				break
			}
		}
		st.Recent = slices.Delete(st.Recent, oldest, oldest+1)
	}
	step.Fire = append(step.Fire, f)
}

// Ended notes how a firing ended, and reports whether it was one of this schedule.
func (s *Schedule) Ended(end *recordv1.ScheduledEnd, now int64) bool {
	if s.Definition == nil || end.Call.GetGeneration() != s.State.Generation || s.State.Running == 0 {
		return false
	}
	for _, f := range s.State.Recent {
		if f.Number != end.Call.Number {
			continue
		}
		if f.Status != 0 {
			return false
		}
		f.Status, f.EndedAt, f.Error = end.Status, end.At, end.Error
	}
	s.State.Running--
	if end.Status == recordv1.Status_STATUS_SUCCEEDED {
		s.State.Succeeded++
	} else {
		s.State.Failed++
	}
	s.wake(now)
	return true
}
