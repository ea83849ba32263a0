package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/storage"
)

const (
	recordFormat       = 1
	recordHeaderBytes  = 1 + 2*binary.MaxVarintLen64 // at most
	appliedFormat      = 1
	prefixBytes        = 3
	maxGroup           = 0xfffe // 0xffff is the prefix of the host's own keys
	maxPayloadKeyBytes = storage.MaxKeyBytes - prefixBytes
	foundingTerm       = 1
	foundingIndex      = 1
)

// record is a decoded log entry: payload is the mutations of (epoch, sequence).
type record struct {
	epoch, sequence uint64
	payload         []byte
}

// encodeRecord puts the header before the payload.
func encodeRecord(epoch, sequence uint64, payload []byte) []byte {
	data := make([]byte, 0, recordHeaderBytes+len(payload))
	data = append(data, recordFormat)
	data = binary.AppendUvarint(data, epoch)
	data = binary.AppendUvarint(data, sequence)
	return append(data, payload...)
}

func decodeRecord(data []byte) (record, error) {
	if len(data) == 0 || data[0] == 0 {
		return record{}, errMalformed
	}
	if data[0] != recordFormat {
		return record{}, fmt.Errorf("%w: %d, this build knows up to %d", ErrNewerFormat, data[0], recordFormat)
	}
	epoch, n := binary.Uvarint(data[1:])
	if n <= 0 {
		return record{}, errMalformed
	}
	at := 1 + n
	sequence, n := binary.Uvarint(data[at:])
	if n <= 0 {
		return record{}, errMalformed
	}
	return record{epoch: epoch, sequence: sequence, payload: data[at+n:]}, nil
}

var errMalformed = errors.New("malformed")

// limits bound one record, and what is merged into one store batch.
type limits struct{ batchBytes, batchWrites int }

// checkPayload refuses what could not be applied later: once in the log, a record that the
// store cannot take would halt the partition on every replica.
func (l limits) checkPayload(payload []byte) error {
	writes, longestKey, longestValue := 0, 0, 0
	err := storage.DecodeBatch(payload, func(op storage.Op) {
		writes++
		longestKey = max(longestKey, len(op.Key))
		longestValue = max(longestValue, len(op.Value))
	})
	switch {
	case err != nil:
		return err
	case len(payload)+prefixBytes*writes > l.batchBytes:
		return fmt.Errorf("%w: %d bytes, at most %d; split it", ErrTooLarge, len(payload)+prefixBytes*writes, l.batchBytes)
	case writes > l.batchWrites:
		return fmt.Errorf("%w: %d writes, at most %d; split it", ErrTooLarge, writes, l.batchWrites)
	case longestKey > maxPayloadKeyBytes:
		return fmt.Errorf("%w: a key of %d bytes, at most %d", ErrTooLarge, longestKey, maxPayloadKeyBytes)
	case longestValue > storage.MaxValueBytes:
		return fmt.Errorf("%w: a value of %d bytes, at most %d; split it", ErrTooLarge, longestValue, storage.MaxValueBytes)
	}
	return nil
}

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
	fields, rest, err := takeUvarints(data[2:], 4)
	if err != nil {
		return applied{}, err
	}
	return applied{
		generation: data[1], index: fields[0], term: fields[1], epoch: fields[2], sequence: fields[3],
		conf: append([]byte(nil), rest...),
	}, nil
}

// The host's own records are under the system prefix and a letter: how far a group is applied, how far
// it will be once a snapshot that is wholly here is in use, and of which snapshot a part is here.
var (
	appliedPrefix = []byte{0xff, 0xff, 'a'}
	stagedPrefix  = []byte{0xff, 0xff, 's'}
	partialPrefix = []byte{0xff, 0xff, 'p'}
)

func appliedKey(group GroupID) []byte { return ownKey(appliedPrefix, group) }
func stagedKey(group GroupID) []byte  { return ownKey(stagedPrefix, group) }
func partialKey(group GroupID) []byte { return ownKey(partialPrefix, group) }

func ownKey(prefix []byte, group GroupID) []byte {
	return binary.BigEndian.AppendUint32(prefix[:len(prefix):len(prefix)], uint32(group))
}

func groupOfOwnKey(prefix, key []byte) (GroupID, bool) {
	if len(key) != len(prefix)+4 {
		return 0, false
	}
	return GroupID(binary.BigEndian.Uint32(key[len(prefix):])), true
}

// keyPrefix begins every key of a partition's generation: uint16 big endian, uint8.
func keyPrefix(group GroupID, generation uint8) [prefixBytes]byte {
	return [prefixBytes]byte{byte(group >> 8), byte(group), generation}
}

func takeUvarints(data []byte, count int) (fields [6]uint64, rest []byte, err error) {
	for i := range count {
		value, n := binary.Uvarint(data)
		if n <= 0 {
			return fields, nil, errMalformed
		}
		fields[i], data = value, data[n:]
	}
	return fields, data, nil
}
