package engine

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

// ChangeSchedule makes, changes, fires or removes a schedule. The answer's value is a
// recordv1.ScheduleReply.
type ChangeSchedule struct {
	Name   string
	Change *recordv1.ScheduleChange
	Token  Token
}

func (ev *ChangeSchedule) evaluate(e *Engine, now int64) error {
	s, err := e.loadSchedule(schedule.ID(ev.Name), ev.Name)
	if err != nil {
		return err
	}
	before := schedule.StandingOf(s.State)
	step, err := s.Change(ev.Change, e.nextSequence(), now)
	if refused, ok := errors.AsType[*schedule.Refused](err); ok {
		if ev.Token != 0 {
			e.effect(&Reply{Token: ev.Token, Refused: true, Result: &recordv1.Result{Error: &recordv1.Error{Code: refused.Code, Message: refused.Text}}})
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("schedule %q: %w", ev.Name, err)
	}
	if ev.Token != 0 {
		reply := &recordv1.ScheduleReply{Schedule: s.Definition, State: s.State, Firing: step.Reply, Changed: step.Changed}
		value, err := proto.Marshal(reply)
		if err != nil {
			return fmt.Errorf("schedule %q: %w", ev.Name, err)
		}
		e.effect(&Reply{Token: ev.Token, Result: &recordv1.Result{Value: value}})
	}
	return e.takeStep(s, step, before, now)
}

// loadSchedule reads a schedule's rows; name may be empty if it is not known.
func (e *Engine) loadSchedule(id invocation.ID, name string) (*schedule.Schedule, error) {
	s := &schedule.Schedule{Name: name, Next: e.config.Next}
	state := &recordv1.ScheduleState{}
	found, err := e.getMessage(table.Scheduling(id), state)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", name, err)
	}
	if !found {
		return s, nil
	}
	s.Name, s.State = state.Name, state
	definition := &recordv1.Schedule{}
	found, err = e.getMessage(table.Schedule(s.Name), definition)
	if err == nil && !found {
		err = errors.New("its definition is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", s.Name, err)
	}
	s.Definition = definition
	return s, nil
}

// takeStep writes what became of a schedule and starts what it fires: all of it one record, with
// the timer that takes the place of the one before.
func (e *Engine) takeStep(s *schedule.Schedule, step schedule.Step, before schedule.Standing, now int64) error {
	if !step.Changed {
		return nil
	}
	wokeAt := before.WakeAt
	id := schedule.ID(s.Name)
	timer := table.Timer{At: wokeAt, Kind: table.TimerSchedule, ID: id}
	if wokeAt != 0 && (step.Deleted || wokeAt != s.State.WakeAt) {
		e.delete(timer.Key())
	}
	if step.Deleted {
		e.delete(table.Schedule(s.Name))
		e.delete(table.Scheduling(id))
		return nil
	}
	if step.Replaced {
		if err := e.putMessage(table.Schedule(s.Name), s.Definition); err != nil {
			return err
		}
	}
	if err := e.putMessage(table.Scheduling(id), s.State); err != nil {
		return err
	}
	if timer.At = s.State.WakeAt; timer.At != 0 {
		if timer.At != wokeAt {
			e.put(timer.Key(), []byte{})
		}
		e.effect(&ArmTimer{At: timer.At}) // The one that has just fired may be due at once again.
	}
	// From here on the rows are what counts: what starts or stops may be in this partition, and
	// tell the schedule so at once.
	for _, running := range step.Cancel {
		if err := e.cancelAnywhere(running, now); err != nil {
			return err
		}
	}
	if moved := s.Moved(step, before); moved != nil {
		e.effect(&ScheduleMoved{*moved})
	}
	for _, firing := range step.Fire {
		if err := e.invoke(s.Invoke(firing), now); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) cancelAnywhere(id invocation.ID, now int64) error {
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Cancel{Cancel: &recordv1.Cancel{InvocationId: id[:]}}})
	}
	_, err := e.cancel(id, false, now)
	return err
}

// fireSchedule is what a schedule's timer does.
func (e *Engine) fireSchedule(timer table.Timer, now int64) error {
	s, err := e.loadSchedule(timer.ID, "")
	if err != nil {
		return err
	}
	if s.Definition == nil || s.State.WakeAt != timer.At {
		e.delete(timer.Key()) // It has another timer, or is gone.
		return nil
	}
	before := schedule.StandingOf(s.State)
	step, err := s.Advance(now)
	if err != nil {
		return fmt.Errorf("schedule %q: %w", s.Name, err)
	}
	return e.takeStep(s, step, before, now)
}

// endScheduled tells a schedule how a firing ended, wherever it lives.
func (e *Engine) endScheduled(end *recordv1.ScheduledEnd, now int64) error {
	id := schedule.ID(end.Call.GetSchedule())
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_ScheduledEnd{ScheduledEnd: end}})
	}
	return e.scheduledEnded(end, now)
}

func (e *Engine) scheduledEnded(end *recordv1.ScheduledEnd, now int64) error {
	s, err := e.loadSchedule(schedule.ID(end.Call.GetSchedule()), end.Call.GetSchedule())
	if err != nil {
		return err
	}
	before := schedule.StandingOf(s.State)
	if !s.Ended(end, now) {
		return nil // It was deleted, and perhaps made anew.
	}
	// What comes next fires by its timer and not from here: one firing that ends at once after
	// the other would make one record of all.
	return e.takeStep(s, schedule.Step{Changed: true}, before, now)
}
