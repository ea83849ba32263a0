package replica

import (
	"encoding/binary"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/rows"
)

const (
	appliedFormat = 1
	foundingTerm  = 1
	foundingIndex = 1
)

var errMalformed = rows.ErrMalformed

// applied says what of a group's log is in the store. It is written in the same batch as the
// mutations, so it is exact.
type applied struct {
	index, term     uint64 // of the last entry applied, whether it had an effect or not
	epoch, sequence uint64 // of the last record of the last term seen; sequence 0 is none yet
	generation      uint8  // of the partition's keys
	conf            []byte // the Raft configuration as of index: a marshalled raftpb.ConfState
}

// next reports whether a record in an entry of the given term has an effect, and notes it.
func (a *applied) next(term, epoch, sequence uint64) bool {
	if epoch != term || epoch != a.epoch || sequence != a.sequence+1 {
		return false
	}
	a.sequence = sequence
	return true
}

// enter notes an entry. Entries of a new term begin a new epoch.
func (a *applied) enter(index, term uint64) {
	a.index, a.term = index, term
	if term != a.epoch {
		a.epoch, a.sequence = term, 0
	}
}

// confState decodes conf.
func (a *applied) confState() (*pb.ConfState, error) {
	conf := &pb.ConfState{}
	if err := proto.Unmarshal(a.conf, conf); err != nil {
		return nil, fmt.Errorf("raft configuration: %w", err)
	}
	return pb.EnsureConfState(conf), nil
}

func (a *applied) appendEncoded(dst []byte) []byte {
	dst = append(dst, appliedFormat, a.generation)
	for _, field := range [...]uint64{a.index, a.term, a.epoch, a.sequence} {
		dst = binary.AppendUvarint(dst, field)
	}
	return append(dst, a.conf...)
}

func decodeApplied(data []byte) (applied, error) {
	if len(data) < 2 {
		return applied{}, errMalformed
	}
	if data[0] != appliedFormat {
		return applied{}, fmt.Errorf("%w: %d, this build knows up to %d", ErrNewerFormat, data[0], appliedFormat)
	}
	fields, rest, err := rows.TakeUvarints(data[2:], 4)
	if err != nil {
		return applied{}, err
	}
	return applied{
		generation: data[1], index: fields[0], term: fields[1], epoch: fields[2], sequence: fields[3],
		conf: append([]byte(nil), rest...),
	}, nil
}
