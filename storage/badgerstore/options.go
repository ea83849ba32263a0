package badgerstore

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/perdure/perdure/storage"
)

// DefaultMemoryBudgetBytes is the memory a store takes at most when Options names none.
const DefaultMemoryBudgetBytes = 192 << 20

const (
	minMemoryBudgetBytes = 48 << 20
	maxMemoryBudgetBytes = 1536 << 20

	// memtablesPerBudget: one memtable filling, one queued, one being flushed, each a third
	// larger than its nominal size, make four; building a table and compacting take two more.
	memtablesPerBudget = 6

	// blockBytes is what a block of a table has, about. A table is built in memory, in an arena of blocks: one
	// that an entry does not fit is moved to another of twice the size, and the old one stays. Badger's
	// own 4 KiB made three bytes of each byte of a value of 10 KB, in each of the eight arenas that it
	// keeps. Reads are no slower: blocks are read where they are mapped.
	blockBytes = 256 << 10

	// valueThreshold is above every encoded value, so that the value log stays empty.
	valueThreshold = storage.MaxValueBytes + 64<<10
)

// Options configures Open. The zero value of a field means its default.
type Options struct {
	// Dir is the store's directory. It is created if it does not exist. Required.
	Dir string
	// Logger receives the store's and Badger's log lines. Defaults to none.
	Logger *slog.Logger
	// MemoryBudgetBytes is what the live heap of the store follows from: under sustained writing of
	// large values it is up to two and a half times as much (set GOMEMLIMIT to bound the garbage
	// on top), for Badger keeps the arenas of eight tables; an idle store has next to nothing of it
	// resident. It also bounds a batch: see Store.MaxBatchBytes. Between 48 MiB
	// and 1.5 GiB. Reads go through mapped files, so the page cache is on top and the
	// system's to reclaim. Defaults to DefaultMemoryBudgetBytes (batches of about 4 MiB).
	MemoryBudgetBytes int64
	// MinFreeBytes is the free space of the file system, beyond an estimate of what
	// compaction needs, below which Commit returns storage.ErrNoSpace. Open wants half of it.
	// Badger writes through mapped sparse files, so a full disk would end the process with
	// SIGBUS. Defaults to 4/3 of
	// MemoryBudgetBytes (room for eight tables), at least 64 MiB.
	MinFreeBytes int64
	// SkipVerify opens without reading every table block to check it: faster for stores of
	// tens of GB, but then a damaged block can hide keys. Tables' indexes, the write-ahead
	// log and every value read are checked regardless. Defaults to false.
	SkipVerify bool
}

// Validate reports every problem of the options, or nil.
func (o Options) Validate() error {
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("Dir is empty: name a directory"))
	}
	if size := o.MemoryBudgetBytes; size != 0 && (size < minMemoryBudgetBytes || size > maxMemoryBudgetBytes) {
		problems = append(problems, fmt.Errorf("MemoryBudgetBytes is %d: choose 0 (default) or %d to %d",
			size, minMemoryBudgetBytes, maxMemoryBudgetBytes))
	}
	if o.MinFreeBytes < 0 {
		problems = append(problems, fmt.Errorf("MinFreeBytes is %d: choose 0 (default) or more", o.MinFreeBytes))
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("badgerstore: options: %w", errors.Join(problems...))
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MemoryBudgetBytes == 0 {
		o.MemoryBudgetBytes = DefaultMemoryBudgetBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = max(64<<20, 8*o.memtableBytes())
	}
	return o
}

func (o Options) memtableBytes() int64 { return o.MemoryBudgetBytes / memtablesPerBudget }

// badgerOptions derives Badger's options. Three of them keep damage visible, because Badger
// turns an unreadable block into absent keys, silently, also while compacting, and then deletes
// the source: no compression and no block verification leave it no block it could fail to
// read, and each value carries our own checksum instead. Uncompressed blocks are read from the
// mapped file, which also makes block and index caches pointless.
func (o Options) badgerOptions() badger.Options {
	return badger.DefaultOptions(badgerDir(o.Dir)).
		WithLogger(badgerLog{o.Logger.With("path", o.Dir)}).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithMemTableSize(o.memtableBytes()).
		WithNumMemtables(1).
		WithNumCompactors(2).
		WithMaxLevels(badgerLevels).
		WithBlockSize(blockBytes).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.NoVerification).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(1 << 20).
		WithMetricsEnabled(false)
}
