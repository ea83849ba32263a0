package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

const (
	// JournalFormat is the newest version of an exported journal.
	JournalFormat = 1
	// maxExportBytes is what journal and rows of an export may take, before they are JSON.
	maxExportBytes = routing.MaxValueBytes
)

func (s *Service) exportJournal(ctx context.Context, request *adminv1.ExportJournalRequest) (*adminv1.ExportJournalResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err != nil {
		return nil, err
	}
	file, err := Export(ctx, s.config.Router, id)
	if err != nil {
		return nil, err
	}
	return &adminv1.ExportJournalResponse{Journal: file}, nil
}

// Export is the journal of an invocation as a file that actortest.Replay reads: the JSON of a
// recordv1.RecordedJournal.
func Export(ctx context.Context, router routing.Router, id invocation.ID) ([]byte, error) {
	exported, err := recorded(ctx, router, id)
	if err != nil {
		return nil, err
	}
	encoded, err := protojson.Marshal(exported)
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer // protojson adds blanks at random
	if err := json.Indent(&file, encoded, "", "  "); err != nil {
		return nil, err
	}
	file.WriteByte('\n')
	return file.Bytes(), nil
}

func recorded(ctx context.Context, router routing.Router, id invocation.ID) (*recordv1.RecordedJournal, error) {
	detail, err := router.Journal(ctx, id, 0, 0)
	if err != nil {
		return nil, err
	}
	row := detail.Row
	mode := invocation.Mode(row.GetMode())
	if !mode.Journaled() {
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "%s is a %s: only DURABLE and RUN handlers have a journal", id, mode)
	}
	out := &recordv1.RecordedJournal{
		Format: JournalFormat, InvocationId: id.String(), Target: row.GetTarget(), Mode: row.GetMode(), Status: row.GetStatus(),
		StartedAt: row.GetStartedAt(), DeadlineAt: row.GetDeadlineAt(), Input: row.GetInput(), Start: row.GetJournalStart(),
		Result: row.GetResult(), Chain: row.GetChain(), Flow: row.GetFlow(), Headers: row.GetHeaders(),
		CancelRequested: row.GetCancelRequested() && !row.GetCancelDelivered(), Origins: row.GetOrigins(),
	}
	failures := row.GetFailed()
	out.GivenUp = row.GetStatus() == recordv1.Status_STATUS_FAILED && (len(failures) == 0 || !failures[len(failures)-1].GetTerminal())
	if at := row.GetContinuedAt(); at != 0 {
		out.StartedAt = at
	}
	budget := maxExportBytes - len(out.Input)
	for after, more := out.Start, true; more; {
		page, err := router.Journal(ctx, id, after, routing.MaxPage)
		if err != nil {
			return nil, err
		}
		for _, entry := range page.Journal {
			after++
			out.Entries = append(out.Entries, entry)
			budget -= proto.Size(entry)
			if completion := page.Completions[after]; completion != nil {
				if completion, err = whole(ctx, router, id, completion); err != nil {
					return nil, err
				}
				out.Completions = append(out.Completions, completion)
				budget -= proto.Size(completion)
			}
		}
		if budget < 0 {
			return nil, routing.Errorf(routing.CodeResourceExhausted, "the journal of %s is larger than the %s that can be exported", id, size(maxExportBytes))
		}
		more = page.More && len(page.Journal) > 0
	}
	if row.GetCompletedAt() != 0 && uint32(len(out.Entries)) < row.GetEntries() {
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "the journal of %s is not kept any more, which is what its journal_retention says: export it before", id)
	}
	return out, withObject(ctx, router, out, budget)
}

// whole is a completion with its value, which is in a page of its own if it is in parts.
func whole(ctx context.Context, router routing.Router, id invocation.ID, completion *recordv1.Completion) (*recordv1.Completion, error) {
	parts := completion.GetParts()
	if parts == nil {
		return completion, nil
	}
	if parts.GetBytes() <= maxExportBytes {
		page, err := router.Journal(ctx, id, completion.GetEntry()-1, 1)
		if err != nil {
			return nil, err
		}
		if completion := page.Completions[completion.GetEntry()]; completion.GetResult() != nil {
			return completion, nil
		}
	}
	return nil, routing.Errorf(routing.CodeResourceExhausted, "entry %d of %s has a result of %s, and a journal can be exported that has at most %s: the invocation can't be exported",
		completion.GetEntry(), id, size(int(parts.GetBytes())), size(maxExportBytes))
}

// withObject adds the object's state and as many of its rows as there is room for.
func withObject(ctx context.Context, router routing.Router, out *recordv1.RecordedJournal, budget int) error {
	if out.GetTarget().GetKey() == "" {
		return nil
	}
	object := invocation.Object{Service: out.GetTarget().GetService(), Key: out.GetTarget().GetKey()}
	found, err := router.StatePage(ctx, routing.StateQuery{Object: object})
	if err != nil {
		return err
	}
	out.State, out.HasState = found.State, found.Has
	for _, name := range slices.Sorted(maps.Keys(found.Tables)) {
		for _, row := range found.Tables[name].Rows {
			if budget -= len(row.Key) + len(row.Value); budget >= 0 {
				out.Rows = append(out.Rows, &recordv1.RecordedRow{Table: name, Key: row.Key, Value: row.Value})
			}
		}
		if found.Tables[name].More || budget < 0 {
			out.CutTables = append(out.CutTables, name)
		}
	}
	return nil
}
