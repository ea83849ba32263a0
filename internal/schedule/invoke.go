package schedule

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// DuePlaceholder in a key stands for the due time, as 2026-11-28T03:00:00Z.
const DuePlaceholder = "{due}"

// modeRun is a WORKFLOW's RUN: its invocation is known by its key.
const modeRun = invocation.ModeRun

// target is what a firing calls.
func (s *Schedule) target(f *recordv1.Firing) invocation.Target {
	t := s.Definition.Invoke.GetTarget()
	key := t.GetKey()
	if s.Definition.KeyField != 0 {
		key = strings.ReplaceAll(key, DuePlaceholder, rfc3339(f.DueAt))
	}
	return invocation.Target{Service: t.GetService(), Key: key, Handler: t.GetHandler()}
}

// invocationID names a firing's invocation: by schedule and due time, so that there can't be two.
func (s *Schedule) invocationID(f *recordv1.Firing) invocation.ID {
	target := s.target(f)
	if invocation.Mode(s.Definition.Invoke.GetMode()) == modeRun {
		return invocation.DerivedID(target, "run")
	}
	of := []string{s.Name, strconv.FormatUint(s.Definition.Generation, 10)}
	switch f.Origin {
	case recordv1.Origin_ORIGIN_TRIGGER:
		of = append(of, "trigger", f.RequestId)
	case recordv1.Origin_ORIGIN_BACKFILL:
		of = append(of, "backfill", f.RequestId, strconv.FormatInt(f.DueAt, 10))
	default:
		of = append(of, "due", strconv.FormatInt(f.DueAt, 10))
	}
	return invocation.DerivedID(target, "schedule", of...)
}

// Invoke is the request that a firing makes.
func (s *Schedule) Invoke(f *recordv1.Firing) *recordv1.Invoke {
	d := s.Definition
	in := proto.CloneOf(d.Invoke)
	in.InvocationId = f.InvocationId
	in.Scheduled = &recordv1.ScheduledCall{Schedule: s.Name, Generation: d.Generation, Number: f.Number, DueAt: f.DueAt}
	if d.TimeoutMs > 0 {
		in.DeadlineAt = f.FiredAt + d.TimeoutMs
	}
	// In protobuf's encoding the last value of a field counts, so what differs is appended.
	if d.KeyField != 0 {
		in.Target.Key = s.target(f).Key
		in.Input = protowire.AppendTag(in.Input, protowire.Number(d.KeyField), protowire.BytesType)
		in.Input = protowire.AppendString(in.Input, in.Target.Key)
		for _, limit := range in.Flow.GetLimits() {
			if limit.Local { // It is the key's.
				limit.Name = strings.ReplaceAll(limit.Name, DuePlaceholder, rfc3339(f.DueAt))
			}
		}
	}
	if d.DueField != 0 {
		in.Input = protowire.AppendTag(in.Input, protowire.Number(d.DueField), protowire.BytesType)
		in.Input = protowire.AppendBytes(in.Input, timestamp(f.DueAt))
	}
	return in
}

// maxEndText bounds what a schedule keeps of why a firing failed.
const maxEndText = 1 << 10

// EndOf is what a schedule hears of the invocation of a firing.
func EndOf(call *recordv1.ScheduledCall, id []byte, status recordv1.Status, failed *recordv1.Error, now int64) *recordv1.ScheduledEnd {
	end := &recordv1.ScheduledEnd{Call: call, InvocationId: id, Status: status, At: now}
	if failed != nil {
		text := failed.Message
		if len(text) > maxEndText {
			text = text[:maxEndText]
		}
		end.Error = &recordv1.Error{Code: failed.Code, Message: strings.ToValidUTF8(text, "")}
	}
	return end
}

// timestamp is a google.protobuf.Timestamp in binary.
func timestamp(at int64) []byte {
	seconds := at / 1000
	if at%1000 < 0 {
		seconds--
	}
	var b []byte
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(seconds))
	if nanos := (at - seconds*1000) * 1e6; nanos != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(nanos))
	}
	return b
}

// rfc3339 writes an instant in UTC, with milliseconds if it has some. This package has no clock,
// and package time is one.
func rfc3339(at int64) string {
	milliseconds := (at%1000 + 1000) % 1000
	seconds := (at - milliseconds) / 1000
	days := seconds / 86400
	rest := seconds % 86400
	if rest < 0 {
		days, rest = days-1, rest+86400
	}
	// Years that begin in March, in cycles of 400 of them.
	days += 719468
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	day := days - era*146097
	year := (day - day/1460 + day/36524 - day/146096) / 365
	yearDay := day - (365*year + year/4 - year/100)
	shifted := (5*yearDay + 2) / 153
	date := yearDay - (153*shifted+2)/5 + 1
	month := shifted + 3
	if month > 12 {
		month -= 12
	}
	year += era * 400
	if month <= 2 {
		year++
	}
	var b strings.Builder
	pad := func(n int64, width int, before string) {
		digits := strconv.FormatInt(n, 10)
		b.WriteString(before + strings.Repeat("0", max(width-len(digits), 0)) + digits)
	}
	pad(year, 4, "")
	pad(month, 2, "-")
	pad(date, 2, "-")
	pad(rest/3600, 2, "T")
	pad(rest/60%60, 2, ":")
	pad(rest%60, 2, ":")
	if milliseconds != 0 {
		pad(milliseconds, 3, ".")
	}
	b.WriteString("Z")
	return b.String()
}
