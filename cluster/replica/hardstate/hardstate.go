// Package hardstate says how the log keeps what Raft must remember of a group besides its entries, and what a node
// must of replicas that it dropped.
package hardstate

import (
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/rows"
)

// A state is its format, term, vote, commit and, from format 2 on, a past. Format 1 is written as long
// as it says everything, so that older builds can read it.
const (
	format     = 1
	formatPast = 2
)

// Past is what a node must remember of replicas of a group that it dropped.
type Past struct {
	Life uint64 // how many they were
	// The last entry that any of them had. Until this one has as much, it neither votes nor campaigns:
	// whoever it helped to lead could lack what they had helped to commit.
	FloorIndex, FloorTerm uint64
	// Dropped is set from the drop until the store knows of it, or later.
	Dropped bool
}

// Append appends the encoding of a group's state.
func Append(dst []byte, hard *pb.HardState, past Past) []byte {
	first := byte(format)
	if past.Life > 0 {
		first = formatPast
	}
	dst = append(dst, first)
	dst = binary.AppendUvarint(dst, hard.GetTerm())
	dst = binary.AppendUvarint(dst, hard.GetVote())
	dst = binary.AppendUvarint(dst, hard.GetCommit())
	if first == format {
		return dst
	}
	dst = binary.AppendUvarint(dst, past.Life)
	dst = binary.AppendUvarint(dst, past.FloorIndex)
	dst = binary.AppendUvarint(dst, past.FloorTerm)
	if past.Dropped {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// Decode reads what Append wrote. Errors: rows.ErrMalformed, rows.ErrNewerFormat, and one for no bytes at all.
func Decode(data []byte) (*pb.HardState, Past, error) {
	if len(data) == 0 {
		return nil, Past{}, errors.New("the log has no state for the group")
	}
	count := 3
	switch data[0] {
	case format:
	case formatPast:
		count = 6
	default:
		return nil, Past{}, fmt.Errorf("log state: %w: %d, this build knows up to %d", rows.ErrNewerFormat, data[0], formatPast)
	}
	fields, rest, err := rows.TakeUvarints(data[1:], count)
	if err != nil {
		return nil, Past{}, fmt.Errorf("log state: %w", err)
	}
	past := Past{Life: fields[3], FloorIndex: fields[4], FloorTerm: fields[5]}
	if count > 3 {
		if len(rest) == 0 {
			return nil, Past{}, fmt.Errorf("log state: %w", rows.ErrMalformed)
		}
		past.Dropped = rest[0] != 0
	}
	return &pb.HardState{Term: new(fields[0]), Vote: new(fields[1]), Commit: new(fields[2])}, past, nil
}
