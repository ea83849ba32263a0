// Package rule has what an operator wants of limits at run time, instead of what a .proto declares:
// rules, and the book of all of them.
//
// # Model
//
// A rule is for limits by their name, from the widest to the most exact:
//
//	bank.v1.AccountService/customer         all that the limit counts
//	bank.v1.AccountService/customer=team-*  what it counts under a value that begins so
//	bank.v1.AccountService/customer=alice   what it counts under this value
//
// Of all rules that fit a limit the most exact one counts, and no other: of two beginnings the
// longer one. What it does not say is as declared. A rule changes numbers and nothing else: who
// is under a limit, and whether that holds a permit, is told by what is declared, since that is
// decided before the owner of the limit hears of it. So a concurrency counts only where one is
// declared.
//
// A Book belongs to one goroutine.
package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Bounds of a book and of one change of it. A change is a message to each of up to 1,024 partitions,
// all of them in one record.
const (
	MaxRules            = 10_000
	MaxChange           = 100
	MaxChangeBytes      = 1 << 20
	MaxNameBytes        = 1024
	MaxDescriptionBytes = 500
)

// Name is what a rule is for.
type Name struct {
	// Declared is the limit's name without what it counts apart.
	Declared string
	// Value is what it counts apart, or with Prefix how that begins.
	Value string
	// Apart: the rule is not for all that the limit counts.
	Apart  bool
	Prefix bool
}

// ParseName reads the name of a rule. The error says what is wrong with it.
func ParseName(name string) (Name, error) {
	declared, value, apart := strings.Cut(name, "=")
	parts := strings.Split(declared, "/")
	switch {
	case name == "":
		return Name{}, fmt.Errorf("the name is empty; it must be that of a limit, such as bank.v1.AccountService/workers")
	case len(name) > MaxNameBytes:
		return Name{}, fmt.Errorf("the name %.40q… has %d bytes; at most %d are allowed", name, len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return Name{}, fmt.Errorf("the name %q is not valid utf-8", name)
	case len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, ""):
		return Name{}, fmt.Errorf("%q is not the name of a limit: it must be SERVICE/LIMIT or SERVICE/HANDLER/LIMIT, such as bank.v1.AccountService/workers, and may go on with =VALUE or =BEGINNING*", name)
	case strings.Contains(declared, "*"):
		return Name{}, fmt.Errorf("%q: a * may be only the last letter, after =, where it stands for any end of a key", name)
	}
	n := Name{Declared: declared, Value: value, Apart: apart}
	if apart && strings.HasSuffix(value, "*") {
		n.Prefix, n.Value = true, value[:len(value)-1]
	}
	if n.Prefix && n.Value == "" {
		n.Prefix, n.Apart = false, false
	}
	return n, nil
}

// String is the name as ParseName reads it, one for all that mean the same.
func (n Name) String() string {
	switch {
	case !n.Apart:
		return n.Declared
	case n.Prefix:
		return n.Declared + "=" + n.Value + "*"
	}
	return n.Declared + "=" + n.Value
}

// Apply is what a limit lets by a rule, nil for none, that declares something else.
func Apply(r *recordv1.LimitRule, declared limit.Settings) limit.Settings {
	s := declared
	if r.GetConcurrency() != nil && declared.Concurrency != 0 {
		s.Concurrency = int(r.Concurrency.Most)
	}
	if rate := r.GetRate(); rate != nil {
		s.Rate = RateOf(rate)
	}
	if r.GetMaxQueue() != nil {
		s.MaxQueue = int(r.MaxQueue.Most)
	}
	return s
}

// RateOf is a recorded rate for a limit.
func RateOf(r *recordv1.Rate) limit.Rate {
	if r.GetCount() <= 0 {
		return limit.Rate{}
	}
	return limit.Rate{Count: r.Count, Per: max(r.PerMs, 1), Burst: max(r.Burst, 1)}
}

// Book is all rules. Its zero value has none.
type Book struct {
	version uint64
	rules   map[string]*recordv1.LimitRule
	// families are the rules of one declared limit.
	families map[string]*family
}

type family struct {
	all   *recordv1.LimitRule
	exact map[string]*recordv1.LimitRule
	// prefixes are those for beginnings, by their length in bytes, and lengths which there are, the
	// longest first: thousands of them are looked through at once.
	prefixes map[int]map[string]*recordv1.LimitRule
	lengths  []int
}

func (f *family) putPrefix(text string, r *recordv1.LimitRule) {
	if f.prefixes[len(text)] == nil {
		at, _ := slices.BinarySearchFunc(f.lengths, len(text), func(a, b int) int { return cmp.Compare(b, a) })
		f.lengths = slices.Insert(f.lengths, at, len(text))
		f.prefixes[len(text)] = map[string]*recordv1.LimitRule{}
	}
	f.prefixes[len(text)][text] = r
}

func (f *family) removePrefix(text string) {
	delete(f.prefixes[len(text)], text)
	if len(f.prefixes[len(text)]) == 0 {
		delete(f.prefixes, len(text))
		f.lengths = slices.DeleteFunc(f.lengths, func(length int) bool { return length == len(text) })
	}
}

// Version counts the changes that the book has seen.
func (b *Book) Version() uint64 { return b.version }

// Restore sets the version of a book that is read again.
func (b *Book) Restore(version uint64) { b.version = version }

// Len is how many rules there are.
func (b *Book) Len() int { return len(b.rules) }

// Rule is the one of that name; nil if there is none.
func (b *Book) Rule(name string) *recordv1.LimitRule { return b.rules[name] }

// Of is the rule that counts for a limit; nil if none does.
func (b *Book) Of(name string) *recordv1.LimitRule {
	if len(b.rules) == 0 {
		return nil
	}
	declared, value, apart := strings.Cut(name, "=")
	f := b.families[declared]
	if f == nil {
		return nil
	}
	if apart {
		if r := f.exact[value]; r != nil {
			return r
		}
		for _, length := range f.lengths {
			if length > len(value) {
				continue
			}
			if r := f.prefixes[length][value[:length]]; r != nil {
				return r
			}
		}
	}
	return f.all
}

// Put adds a rule, or replaces the one of its name, which ParseName must be able to read.
func (b *Book) Put(r *recordv1.LimitRule) error {
	name, err := ParseName(r.GetName())
	if err != nil {
		return err
	}
	b.Remove(r.Name)
	if b.rules == nil {
		b.rules, b.families = map[string]*recordv1.LimitRule{}, map[string]*family{}
	}
	b.rules[r.Name] = r
	f := b.families[name.Declared]
	if f == nil {
		f = &family{exact: map[string]*recordv1.LimitRule{}, prefixes: map[int]map[string]*recordv1.LimitRule{}}
		b.families[name.Declared] = f
	}
	switch {
	case !name.Apart:
		f.all = r
	case name.Prefix:
		f.putPrefix(name.Value, r)
	default:
		f.exact[name.Value] = r
	}
	return nil
}

// Remove removes the rule of a name, if it is there.
func (b *Book) Remove(text string) {
	if b.rules[text] == nil {
		return
	}
	delete(b.rules, text)
	name, err := ParseName(text)
	f := b.families[name.Declared]
	if err != nil || f == nil {
		return
	}
	switch {
	case !name.Apart:
		f.all = nil
	case name.Prefix:
		f.removePrefix(name.Value)
	default:
		delete(f.exact, name.Value)
	}
	if f.all == nil && len(f.prefixes)+len(f.exact) == 0 {
		delete(b.families, name.Declared)
	}
}

// Take makes a change of the book that Change has allowed, somewhere.
func (b *Book) Take(change *recordv1.Rules) error {
	b.version = change.GetVersion()
	for _, name := range change.GetRemove() {
		b.Remove(name)
	}
	for _, r := range change.GetSet() {
		if err := b.Put(r); err != nil {
			return err
		}
	}
	return nil
}

// Page is the rules whose names begin with prefix and come after another, in their order, at most so
// many; more: there are others behind them.
func (b *Book) Page(prefix, after string, most int) (page []*recordv1.LimitRule, more bool) {
	for name, r := range b.rules {
		if strings.HasPrefix(name, prefix) && name > after {
			page = append(page, r)
		}
	}
	slices.SortFunc(page, func(a, b *recordv1.LimitRule) int { return cmp.Compare(a.Name, b.Name) })
	if len(page) > most {
		return page[:most], true
	}
	return page, false
}

// same is whether two rules say the same, whenever that was.
func same(a, b *recordv1.LimitRule) bool {
	if a == nil || b == nil {
		return a == b
	}
	b = proto.CloneOf(b)
	b.SetAt = a.SetAt
	return proto.Equal(a, b)
}
