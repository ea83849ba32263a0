package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/bench/internal/scale"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/badgerstore"
)

// valueBytes is the state that an object of the study has, keyBytes what its row's key has.
const (
	valueBytes = 100
	keyBytes   = 32
)

// row is the i-th one: keys in no order, as keys of objects come.
func row(batch *storage.Batch, prefix string, random *rand.Rand) {
	key := append([]byte(prefix), make([]byte, keyBytes-len(prefix))...)
	value := make([]byte, valueBytes)
	for at := len(prefix); at+8 <= keyBytes; at += 8 {
		binary.BigEndian.PutUint64(key[at:], random.Uint64())
	}
	for at := 0; at+8 <= valueBytes; at += 8 {
		binary.BigEndian.PutUint64(value[at:], random.Uint64())
	}
	batch.Put(key, value)
}

// measureStorage stores rows, opens the store again, and has it copied to another node.
func measureStorage(ctx context.Context, rows int, p *scale.Parameters) error {
	dir, err := os.MkdirTemp("", "perdure-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	open := func(name string) (*badgerstore.Store, error) {
		return badgerstore.Open(badgerstore.Options{Dir: filepath.Join(dir, name), Logger: quiet()})
	}
	first, err := open("first")
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	p.RowBytes = keyBytes + valueBytes
	began := time.Now()
	for left := rows; left > 0; {
		var batch storage.Batch
		for ; batch.Len() < 20_000 && left > 0; left-- {
			row(&batch, "\x00\x01\x00s", random) // where a host keeps those of group 1
		}
		if err := first.Commit(&batch); err != nil {
			return err
		}
	}
	p.CommitBytesPerSecond = float64(rows) * p.RowBytes / time.Since(began).Seconds()
	if err := first.Close(); err != nil {
		return err
	}
	size, err := filesBytes(filepath.Join(dir, "first"))
	if err != nil {
		return err
	}
	p.StoredBytes = size / float64(rows)
	before := heap()
	second, err := open("second")
	if err != nil {
		return err
	}
	defer second.Close()
	empty := heap() - before
	began = time.Now()
	if first, err = open("first"); err != nil {
		return err
	}
	p.OpenBytesPerSecond = size / time.Since(began).Seconds()
	defer first.Close()
	p.RowHeapBytes = max(0, heap()-before-2*empty) / float64(rows)
	if err := measureLog(p, random); err != nil {
		return err
	}
	return measureSnapshot(ctx, first, second, float64(rows)*p.RowBytes, p)
}

// measureLog appends a record at a time.
func measureLog(p *scale.Parameters, random *rand.Rand) error {
	log, err := memoryLog()
	if err != nil {
		return err
	}
	defer log.Close()
	before := log.Stats().WrittenBytes
	const records = 10_000
	for i := range records {
		var batch storage.Batch
		row(&batch, "s", random)
		entry := replicaEntry(uint64(i)+1, batch.AppendEncoded(make([]byte, 8)))
		if err := log.Append(entry); err != nil {
			return err
		}
	}
	p.LogBytes = float64(log.Stats().WrittenBytes-before) / records
	return nil
}

// measureSnapshot has a node that has all rows give them to one that has none.
func measureSnapshot(ctx context.Context, first, second storage.Store, bytes float64, p *scale.Parameters) error {
	h := newEmptyHosts(2)
	defer h.stop()
	ids := []replica.GroupID{1}
	unbounded := func(c *replica.Config) { c.SnapshotBytesPerSecond = 1 << 40 }
	for node, store := range map[uint64]storage.Store{1: first, 2: second} {
		log, err := memoryLog()
		if err != nil {
			return err
		}
		if node == 1 {
			// Founds the group, and cuts its log off, so that nothing but a snapshot helps.
			if _, err := replica.Open(replica.Config{Log: log, Store: store, NodeID: firstID + node, Groups: ids, Found: true, Logger: quiet()}); err != nil {
				return err
			}
		}
		if err := h.start(node, log, store, ids, unbounded); err != nil {
			return err
		}
	}
	g := h.groups[1][1]
	if err := until("a leader", func() bool { return g.Status().Epoch > 0 }); err != nil {
		return err
	}
	began := time.Now()
	if err := h.grow(ctx, 1, 1, []uint64{firstID + 2}); err != nil {
		return err
	}
	p.SnapshotBytesPerSecond = bytes / time.Since(began).Seconds()
	return nil
}

// measurePartitions compares nodes with few and with many partitions, each in a process of its own.
func measurePartitions(ctx context.Context, p *scale.Parameters) error {
	const few, many = 16, 512
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var heaps [2]float64
	for i, count := range []int{few, many} {
		out, err := exec.CommandContext(ctx, self, "-heap-of", strconv.Itoa(count)).Output()
		if err != nil {
			return err
		}
		if heaps[i], err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err != nil {
			return err
		}
	}
	p.PartitionHeapBytes = (heaps[1] - heaps[0]) / (many - few)
	p.NodeHeapBytes = max(0, heaps[0]-few*p.PartitionHeapBytes)
	return nil
}

// heapOf prints the heap of a node with so many partitions.
func heapOf(ctx context.Context, partitions int) error {
	node := cluster.NewNode(cluster.WithInMemory(), cluster.WithoutListener(), cluster.WithPartitions(uint32(partitions)), cluster.WithLogger(quiet()))
	if err := node.Start(ctx); err != nil {
		return err
	}
	fmt.Println(heap())
	return node.Shutdown(ctx)
}

func filesBytes(dir string) (total float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += float64(info.Size())
		}
		return err
	})
	return total, err
}
