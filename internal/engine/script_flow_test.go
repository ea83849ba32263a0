package engine

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// flowArgs reads limits=, tenant= and priority= of a request. Limits are separated by ";" and
// written NAME,c=1,rate=COUNT/MS/BURST,queue=2,done,local; the service is added to the name.
func flowArgs(a args) *recordv1.Flow {
	if a["limits"] == "" && a["tenant"] == "" && a["priority"] == "" {
		return nil
	}
	f := &recordv1.Flow{Tenant: a["tenant"], Priority: int32(a.number("priority"))}
	if a["limits"] == "" {
		return f
	}
	for text := range strings.SplitSeq(a["limits"], ";") {
		words := strings.Split(text, ",")
		limit := &recordv1.Limit{Name: "Svc/" + words[0]}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, ":")
			number, _ := strconv.ParseInt(value, 10, 64)
			switch name {
			case "c":
				limit.Concurrency = uint32(number)
			case "rate":
				_, _ = fmt.Sscanf(value, "%d/%d/%d", &limit.RateCount, &limit.RatePerMs, &limit.Burst)
			case "queue":
				limit.MaxQueue = int32(number)
			case "done":
				limit.UntilDone = true
			case "local":
				limit.Local = true
			}
		}
		f.Limits = append(f.Limits, limit)
	}
	return f
}

func limitValue(key, value []byte) string {
	if _, id, _ := table.ParseLimit(key); !id.IsZero() {
		return ""
	}
	row := &recordv1.LimitRow{}
	_ = proto.Unmarshal(value, row)
	if row.Limit.GetRateCount() == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d tokens at %d", row.Level, row.Limit.RatePerMs, row.LevelAt)
}

// ruleArgs reads set= and remove= of a change of the rules, each with names separated by ";". What a rule
// says is written as for limits: c:1, c:0 for any number, c:-1 for none.
func ruleArgs(a args) *recordv1.Rules {
	change := &recordv1.Rules{}
	if a["remove"] != "" {
		for name := range strings.SplitSeq(a["remove"], ";") {
			change.Remove = append(change.Remove, "Svc/"+name)
		}
	}
	if a["set"] == "" {
		return change
	}
	for text := range strings.SplitSeq(a["set"], ";") {
		words := strings.Split(text, ",")
		r := &recordv1.LimitRule{Name: "Svc/" + words[0]}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, ":")
			number, _ := strconv.ParseInt(value, 10, 32)
			switch name {
			case "c":
				r.Concurrency = &recordv1.Bound{Most: int32(number)}
			case "rate":
				r.Rate = &recordv1.Rate{}
				_, _ = fmt.Sscanf(value, "%d/%d/%d", &r.Rate.Count, &r.Rate.PerMs, &r.Rate.Burst)
			case "queue":
				r.MaxQueue = &recordv1.Bound{Most: int32(number)}
			}
		}
		change.Set = append(change.Set, r)
	}
	return change
}

func ruleValue(key, value []byte) string {
	if name, _ := table.ParseRule(key); name == "" {
		book := &recordv1.RuleBook{}
		_ = proto.Unmarshal(value, book)
		return fmt.Sprintf("version %d", book.Version)
	}
	r := &recordv1.LimitRule{}
	_ = proto.Unmarshal(value, r)
	var says []string
	if r.Concurrency != nil {
		says = append(says, fmt.Sprintf("c %d", r.Concurrency.Most))
	}
	if r.Rate != nil {
		says = append(says, fmt.Sprintf("rate %d/%d/%d", r.Rate.Count, r.Rate.PerMs, r.Rate.Burst))
	}
	if r.MaxQueue != nil {
		says = append(says, fmt.Sprintf("queue %d", r.MaxQueue.Most))
	}
	return strings.Join(says, ", ")
}
