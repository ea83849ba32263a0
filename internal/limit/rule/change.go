package rule

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Refused is why a change is not made. All that is wrong with it is in the text.
type Refused struct {
	// Full: there would be too many rules. Otherwise the change is not valid.
	Full bool
	Text string
}

// Error implements error.
func (r *Refused) Error() string { return r.Text }

// Change is the change of the book that is asked for at an instant, as it travels: without what is so
// already, and with the next version. It is nil if nothing is left, and a *Refused if anything
// is wrong. partitions is how many are told. The book is as it was.
func (b *Book) Change(asked *recordv1.Rules, partitions uint32, now int64) (*recordv1.Rules, error) {
	change := &recordv1.Rules{Version: b.version + 1}
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if err := CheckCount(len(asked.GetSet()) + len(asked.GetRemove())); err != nil {
		return nil, err // Not what is wrong with each: that may be more than anybody reads.
	}
	seen := map[string]bool{}
	once := func(name string) {
		if seen[name] {
			wrong("%s is there twice", name)
		}
		seen[name] = true
	}
	for _, name := range asked.GetRemove() {
		once(name)
		if b.rules[name] != nil { // The same change may come twice.
			change.Remove = append(change.Remove, name)
		}
	}
	more := -len(change.Remove)
	for _, r := range asked.GetSet() {
		problems = append(problems, Check(r)...)
		once(r.GetName())
		if same(b.rules[r.GetName()], r) {
			continue
		}
		if b.rules[r.GetName()] == nil {
			more++
		}
		r = proto.CloneOf(r)
		r.SetAt = now
		change.Set = append(change.Set, r)
	}
	if len(problems) == 0 && uint64(proto.Size(change))*uint64(partitions) > MaxChangeBytes && len(asked.GetSet())+len(asked.GetRemove()) > 1 {
		wrong("the change has %d bytes, and each of %d partitions is told of it: at most %d bytes are allowed; make several of it", proto.Size(change), partitions, MaxChangeBytes/int(max(partitions, 1)))
	}
	switch {
	case len(problems) > 0:
		return nil, &Refused{Text: strings.Join(problems, "; ")}
	case more > 0 && len(b.rules)+more > MaxRules:
		return nil, &Refused{Full: true, Text: fmt.Sprintf("there are %d rules, and no more than %d may be: remove some, or let one with a * stand for several", len(b.rules), MaxRules)}
	case len(change.Set)+len(change.Remove) == 0:
		return nil, nil
	}
	return change, nil
}

// CheckCount says whether one change may be of so many rules.
func CheckCount(rules int) error {
	if rules == 0 || rules > MaxChange {
		return &Refused{Text: fmt.Sprintf("%d rules are to be set or removed; it must be 1 to %d", rules, MaxChange)}
	}
	return nil
}

// Check says all that is wrong with a rule by itself.
func Check(r *recordv1.LimitRule) (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	name, err := ParseName(r.GetName())
	switch {
	case err != nil:
		wrong("%v", err)
		return problems
	case name.String() != r.Name:
		wrong("%s must be written %s", r.Name, name)
	}
	if r.Concurrency == nil && r.Rate == nil && r.MaxQueue == nil {
		wrong("%s says nothing: give it a concurrency, a rate or a bound of those that wait", r.Name)
	}
	for _, bound := range []struct {
		what  string
		bound *recordv1.Bound
	}{{"the concurrency", r.Concurrency}, {"the bound of those that wait", r.MaxQueue}} {
		if most := bound.bound.GetMost(); most < limit.None || most > limit.MaxCount {
			wrong("%s: %s is %d; at most %d are allowed", r.Name, bound.what, most, limit.MaxCount)
		}
	}
	if rate := r.Rate; rate.GetCount() != 0 {
		switch {
		case rate.Count < 0 || rate.PerMs < 1 || rate.PerMs > limit.MaxPer:
			wrong("%s: the rate is %d each %d ms; it must be 1 or more each time of 1 ms to 366 days", r.Name, rate.Count, rate.PerMs)
		case rate.Burst < 1 || max(rate.Count, rate.Burst) > limit.MaxBurst(rate.PerMs):
			wrong("%s: the rate is %d each %d ms with %d at once; from 1 to %d can be counted for that time", r.Name, rate.Count, rate.PerMs, rate.Burst, limit.MaxBurst(rate.PerMs))
		}
	}
	switch {
	case len(r.Description) > MaxDescriptionBytes:
		wrong("%s: the description has %d bytes; at most %d are allowed", r.Name, len(r.Description), MaxDescriptionBytes)
	case !utf8.ValidString(r.Description):
		wrong("%s: the description is not valid utf-8", r.Name)
	}
	return problems
}
