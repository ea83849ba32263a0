package admin

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (s *Service) getState(ctx context.Context, request *adminv1.GetStateRequest) (*adminv1.GetStateResponse, error) {
	desc, err := s.service(request.GetService())
	if err != nil {
		return nil, err
	}
	if err := checkState(desc, request); err != nil {
		return nil, err
	}
	limit, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	from, err := base64.RawURLEncoding.DecodeString(request.GetPageToken())
	if err != nil {
		return nil, badToken(request.GetPageToken())
	}
	object, err := s.config.Router.StatePage(ctx, routing.StateQuery{
		Object: invocation.Object{Service: request.GetService(), Key: request.GetKey()},
		Table:  request.GetTable(), From: string(from), Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetStateResponse{HasState: object.Has, StateType: typeName(desc.StateType)}
	if object.Has {
		response.StateJson, response.Note = renderState(object.State, desc.StateType, desc.StateVersion, maxStateBytes)
	}
	shown := tables(desc, object, request.GetTable())
	if name := request.GetTable(); name != "" && len(shown) == 0 {
		names := make([]string, 0, len(desc.Tables))
		for _, table := range desc.Tables {
			names = append(names, table.Name)
		}
		return nil, routing.Errorf(routing.CodeNotFound, "%s has no table %q; it has: %s", desc.Name, clip(name), list(names))
	}
	// The page ends early rather than hold more than this.
	budget := maxStateBytes
	for _, table := range shown {
		response.Tables = append(response.Tables, page(table, object.Tables[table.Name], &budget))
	}
	return response, nil
}

func checkState(desc *actor.ServiceDesc, request *adminv1.GetStateRequest) error {
	key := request.GetKey()
	switch {
	case desc.Kind == actor.KindService:
		return invalid("%s is a SERVICE: it has neither keys nor state", desc.Name)
	case key == "":
		return invalid("key is empty: it names the object of %s to look at", desc.Name)
	case len(key) > invocation.MaxKeyBytes:
		return invalid("key has %d bytes; at most %d are allowed", len(key), invocation.MaxKeyBytes)
	case request.GetTable() == "" && request.GetPageToken() != "":
		return invalid("pageToken continues one table: set table too")
	}
	return nil
}

// tables are those to show, in the order of the .proto, and after them those that hold rows
// though no .proto declares them any more.
func tables(desc *actor.ServiceDesc, object *routing.ObjectState, only string) []actor.TableDesc {
	shown := slices.Clone(desc.Tables)
	for _, name := range slices.Sorted(maps.Keys(object.Tables)) {
		if !slices.ContainsFunc(desc.Tables, func(t actor.TableDesc) bool { return t.Name == name }) {
			shown = append(shown, actor.TableDesc{Name: name})
		}
	}
	if only != "" {
		shown = slices.DeleteFunc(shown, func(t actor.TableDesc) bool { return t.Name != only })
	}
	return shown
}

// page shows rows as long as budget lasts, but at least one. rows is nil for a table without any.
func page(table actor.TableDesc, rows *routing.Table, budget *int) *adminv1.StateTable {
	out := &adminv1.StateTable{Name: table.Name, ValueType: typeName(table.New)}
	if rows == nil {
		return out
	}
	out.Size = rows.Size
	more := rows.More
	for i, row := range rows.Rows {
		if i > 0 && *budget <= 0 {
			more = true
			break
		}
		text, note := renderState(row.Value, table.New, table.Version, maxStateBytes)
		*budget -= len(row.Key) + len(text) + len(note)
		out.Rows = append(out.Rows, &adminv1.StateTableRow{Key: row.Key, ValueJson: text, Note: note})
	}
	if more && len(out.Rows) > 0 {
		// The least key after the last one shown.
		next := out.Rows[len(out.Rows)-1].Key + "\x00"
		out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(next))
	}
	return out
}

// renderState is render for a state or a row. One of another version is of another type.
func renderState(stored []byte, empty func() proto.Message, own uint32, limit int) (text, note string) {
	version, message, err := table.ParseState(stored)
	own = max(own, 1)
	switch {
	case err != nil:
		return "", fmt.Sprintf("%s: %v", size(len(stored)), err)
	case empty != nil && version < own:
		return "", fmt.Sprintf("%s of version %d: handlers see it migrated to version %d, which the next write makes of it", size(len(message)), version, own)
	case empty != nil && version > own:
		return "", fmt.Sprintf("%s of version %d, and this build knows up to %d", size(len(message)), version, own)
	}
	return render(message, empty, limit)
}

func typeName(empty func() proto.Message) string {
	if empty == nil {
		return ""
	}
	return string(empty().ProtoReflect().Descriptor().FullName())
}
