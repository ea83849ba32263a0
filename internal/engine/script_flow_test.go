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
