package badgerstore

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/storage"
)

// spaceCheck asks the file system for its free space, at most every 100 ms or 4 MiB.
type spaceCheck struct {
	dir          string
	minFreeBytes int64
	freeBytes    func(dir string) (int64, error)
	// reserve is what compaction may need on top of minFreeBytes. It goes on when commits are
	// refused, and a full disk under it ends the process just as well.
	reserve func() int64

	checkedAt    time.Time
	writtenBytes int64 // since checkedAt
}

const (
	spaceCheckEvery      = 100 * time.Millisecond
	spaceCheckEveryBytes = 4 << 20
)

// allow returns storage.ErrNoSpace below the watermark. A refusal is not remembered: the next
// call looks again.
func (c *spaceCheck) allow(batchBytes int) error {
	c.writtenBytes += int64(batchBytes)
	if c.writtenBytes < spaceCheckEveryBytes && !c.checkedAt.IsZero() && time.Since(c.checkedAt) < spaceCheckEvery {
		return nil
	}
	c.checkedAt = time.Time{}
	if err := c.require(c.minFreeBytes + c.reserve()); err != nil {
		return err
	}
	c.checkedAt, c.writtenBytes = time.Now(), 0
	return nil
}

func (c *spaceCheck) require(wantBytes int64) error {
	free, err := c.freeBytes(c.dir)
	if err != nil {
		return err
	}
	if free < wantBytes {
		return fmt.Errorf("%w: %s has %d bytes free and needs %d: free some, then try again", storage.ErrNoSpace, c.dir, free, wantBytes)
	}
	return nil
}

// levelSizes is the size of tables by level.
type levelSizes struct {
	levels       [badgerLevels]int64
	largestBytes int64 // the largest table below level 0
}

// badgerLevels is Badger's default.
const badgerLevels = 7

// reserve estimates what compactions may write before they delete their input: level 0 into the
// first level that holds data, all of both, and at the same time one table further down with
// the tables that overlap it, about ten.
func (l levelSizes) reserve() int64 {
	first, deeper := int64(0), int64(0)
	for _, bytes := range l.levels[1:] {
		if first == 0 {
			first = bytes
		} else {
			deeper += bytes
		}
	}
	return l.levels[0] + first + min(12*l.largestBytes, deeper)
}

func (s *Store) compactionReserve() int64 {
	var sizes levelSizes
	for _, level := range s.db.Levels() {
		sizes.levels[level.Level] = level.Size
		if level.Level > 0 && level.Size > 0 {
			// A table ends once it reaches the target.
			sizes.largestBytes = max(sizes.largestBytes, min(level.Size, level.TargetFileSize))
		}
	}
	return sizes.reserve()
}
