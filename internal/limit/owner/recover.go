package owner

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Recover reads the rule book and the limits of this partition, with all who hold a permit or wait.
// damaged are rows that could not be read.
func (l *Limits) Recover(now int64) (damaged []error, err error) {
	note := func(key []byte, err error) {
		damaged = append(damaged, fmt.Errorf("row %s: %w", table.Describe(key), err))
	}
	if err := l.recoverRules(note); err != nil {
		return damaged, err
	}
	if err := l.recoverLimits(note, now); err != nil {
		return damaged, err
	}
	if err := l.recoverWaits(note, now); err != nil {
		return damaged, err
	}
	for name, own := range l.named { // The leader before may not have been through.
		if own.Waiting() > 0 {
			l.retuned = append(l.retuned, name)
		}
	}
	slices.Sort(l.retuned)
	return damaged, nil
}

func (l *Limits) recoverRules(damaged func(key []byte, err error)) error {
	lower, upper := table.RulesAll()
	return l.rows.Scan(lower, upper, func(key, value []byte) bool {
		name, err := table.ParseRule(key)
		switch {
		case err != nil:
		case name == "":
			book := &recordv1.RuleBook{}
			err = proto.Unmarshal(value, book)
			l.book.Restore(book.Version)
		default:
			r := &recordv1.LimitRule{}
			if err = proto.Unmarshal(value, r); err == nil && r.Name != name {
				err = errors.New("it is not the row of that key")
			}
			if err == nil {
				err = l.book.Put(r)
			}
		}
		if err != nil {
			damaged(key, err)
		}
		return true
	})
}

// find is a limit of which there is a permit or someone who waits.
func (l *Limits) find(name string, now int64) *owned {
	own := l.named[name]
	if own == nil { // Its row is damaged: whoever asks next says what its settings are.
		own = &owned{Limit: limit.New(limit.Settings{}, now)}
		l.add(own, name)
	}
	return own
}

func (l *Limits) recoverLimits(damaged func(key []byte, err error), now int64) error {
	lower, upper := table.LimitsFrom("")
	return l.rows.Scan(lower, upper, func(key, value []byte) bool {
		name, id, err := table.ParseLimit(key)
		limitRow, permitRow := &recordv1.LimitRow{}, &recordv1.PermitRow{}
		switch {
		case err != nil:
		case id.IsZero():
			err = proto.Unmarshal(value, limitRow)
		default:
			err = proto.Unmarshal(value, permitRow)
		}
		switch {
		case err != nil:
			damaged(key, err)
		case id.IsZero():
			counted := declared(limitRow.Limit)
			if limitRow.Counted != nil {
				counted.Rate = rule.RateOf(limitRow.Counted)
			}
			own := &owned{record: limitRow.Limit, setAt: limitRow.SetAt}
			own.Limit, own.dirty = restore(limitRow, counted, l.settings(limitRow.Limit), now)
			l.add(own, name)
		default:
			if own := l.find(name, now); !bugLimit {
				own.Hold(id, limit.Permit{Number: permitRow.Number, Partition: permitRow.Partition, Tenant: permitRow.Tenant, At: permitRow.At})
			}
		}
		return true
	})
}

// restore makes a limit from its row, whose level was counted with other settings if rules have changed
// since: at some time before now. Nobody has begun since the row was written, but how much came into the
// bucket depends on that time. The less that may be is what is there, so that no leader lets more begin
// than the one before it.
func restore(row *recordv1.LimitRow, counted, settings limit.Settings, now int64) (restored *limit.Limit, changed bool) {
	late := limit.Restore(counted, row.Level, row.LevelAt)
	if counted == settings {
		return late, false
	}
	early := limit.Restore(counted, row.Level, row.LevelAt)
	early.Set(settings, row.LevelAt)
	late.Set(settings, now)
	level := func(l *limit.Limit) int64 {
		l.Tokens(now)
		level, _ := l.Bucket()
		return level
	}
	if level(early) < level(late) {
		return early, true
	}
	return late, true
}

func (l *Limits) recoverWaits(damaged func(key []byte, err error), now int64) error {
	lower, upper := table.WaitsAll()
	return l.rows.Scan(lower, upper, func(key, value []byte) bool {
		row := &recordv1.WaitRow{}
		name, band, rank, sequence, err := table.ParseWait(key)
		if err == nil {
			err = proto.Unmarshal(value, row)
		}
		id, ok := invocation.IDFromBytes(row.InvocationId)
		a := &limit.Ask{
			ID: id, Number: row.Number, Partition: row.Partition, Tenant: row.Tenant, Priority: row.Priority,
			Begun: row.Begun, Holds: row.Holds, Firm: row.Firm, At: row.At, Sequence: sequence, Rank: rank,
		}
		if err == nil && (!ok || a.Band() != band) {
			err = errors.New("it is not the row of that key")
		}
		if err != nil {
			damaged(key, err)
			return true
		}
		l.find(name, now).Queue(a)
		return true
	})
}

// declaredName is a limit's name without what it counts apart: there may be any number of those.
func declaredName(name string) string {
	declared, _, _ := strings.Cut(name, "=")
	return declared
}
