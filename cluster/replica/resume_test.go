package replica

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica/stream"
	"github.com/perdure/perdure/cluster/replica/wire"
)

// resuming is a world of two nodes of which the second is about to be sent a snapshot of many chunks.
func resuming(t *testing.T) *world {
	w := newWorld(t, 1, 2, 1)
	w.adjust = func(c *Config) {
		c.snapshotChunkBytes, c.RetainBytes = 400, 1
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.proposing(1, 60)
	return w
}

// finish lets the second node become a voter and compares what both have.
func (w *world) finish() {
	w.t.Helper()
	w.grow(1, 1, 2)
	w.proposing(1, 5)
	w.agree()
	time.Sleep(stream.ReceiverPatience) // on the fake clock: until then parts of snapshots are kept
	w.until("rubbish to be deleted", time.Minute, w.clean)
}

// chunksOf counts what a snapshot takes when nothing goes wrong, its end included.
func chunksOf(t *testing.T) (chunks int) {
	synctest.Test(t, func(t *testing.T) {
		w := resuming(t)
		defer w.stopAll()
		w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
			if err == nil {
				chunks++
			}
			return chunk, err
		}
		w.finish()
	})
	if chunks < 8 {
		t.Fatalf("a snapshot has %d chunks", chunks)
	}
	return chunks
}

// TestCutAtEveryChunk: a snapshot whose stream is cut goes on behind what arrived. Of all chunks only the one
// that was on its way is sent twice.
func TestCutAtEveryChunk(t *testing.T) {
	whole := chunksOf(t)
	for cut := 1; cut <= whole; cut++ {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := resuming(t)
				defer w.stopAll()
				sent := 0
				var asked []uint64
				w.net.asked = func(_ uint64, at wire.Position) { asked = append(asked, at.Chunks) }
				w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
					if err != nil {
						return chunk, err
					}
					if sent++; sent == cut {
						return nil, errLost
					}
					return chunk, nil
				}
				w.finish()
				if sent != whole+1 {
					t.Errorf("%d chunks were sent, want each of %d once and one of them twice", sent, whole)
				}
				if len(asked) != 1 || asked[0] != uint64(cut-1) {
					t.Errorf("the receiver said it has %d chunks, want %d once", asked, cut-1)
				}
				if n := w.snapshots(); n != 1 {
					t.Errorf("%d snapshots were taken", n)
				}
			})
		})
	}
}

// TestReceiverLosesPower cuts the receiver's power at everything it writes. What it had on its disk is not
// sent again, and what it had not, is.
func TestReceiverLosesPower(t *testing.T) {
	whole := chunksOf(t)
	resumed, done := 0, false
	for at := 1; !done && at < 500; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := resuming(t)
				defer w.stopAll()
				n := w.node(2)
				sent, written, atCut := 0, 0, 0
				down := make(chan struct{})
				w.net.asked = func(_ uint64, at wire.Position) {
					if at.Chunks > 0 {
						resumed++
					}
				}
				w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
					if err == nil {
						sent++
					}
					return chunk, err
				}
				observe := func(by *worldNode) {
					if by != n || sent == 0 { // before the snapshot
						return
					}
					if written++; written != at {
						return
					}
					r := w.current(2)
					atCut = sent
					go func() {
						n.crash()
						close(down)
					}()
					for !r.isDead() {
						time.Sleep(time.Millisecond) // of the fake clock: how often to look
					}
				}
				w.observe.Store(&observe)
				go w.grow(1, 1, 2)
				select {
				case <-down:
					w.observe.Store(nil)
					n.start()
				case <-time.After(20 * time.Second):
					done = true
					w.observe.Store(nil)
				}
				w.finish()
				most := whole + 2
				if atCut >= whole { // Wholly there, but not in use: that is not gone on with.
					most = 2*whole + 2
				}
				if sent > most {
					t.Errorf("%d chunks were sent, %d of them before the cut; want at most %d", sent, atCut, most)
				}
			})
		})
		if t.Failed() {
			return
		}
	}
	if !done || resumed < whole {
		t.Errorf("%d snapshots went on after a power cut, of %d chunks; done: %v", resumed, whole, done)
	}
}

// TestSenderStartsAnew: a sender that lost its view sends another snapshot, and nothing of the first one is
// in what the receiver has then.
func TestSenderStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := resuming(t)
		defer w.stopAll()
		sent := 0
		down := make(chan struct{})
		w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
			if sent++; sent != 5 {
				return chunk, err
			}
			go func() {
				w.node(1).crash()
				close(down)
			}()
			return nil, errLost
		}
		go w.grow(1, 1, 2)
		<-down
		if p, ok := w.current(2).host.partials.Generation(1); !ok {
			t.Errorf("nothing is kept of the snapshot: %v", p)
		}
		w.node(1).start()
		w.waitLeader(1)
		w.proposing(1, 20)
		w.finish()
	})
}

// TestGivesUpPartial: what nobody goes on with is deleted, also if the receiver was restarted meanwhile.
func TestGivesUpPartial(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := resuming(t)
			defer w.stopAll()
			down := make(chan struct{})
			sent := 0
			w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
				if sent++; sent != 5 {
					return chunk, err
				}
				go func() {
					w.node(1).stop()
					close(down)
				}()
				return nil, errLost
			}
			go w.grow(1, 1, 2)
			<-down
			if restart {
				w.node(2).crash()
				w.node(2).start()
			}
			has := func() bool {
				for _, key := range w.node(2).store.Keys() {
					if key[0] != 0xff || strings.HasPrefix(string(key[2:]), "p") {
						return true
					}
				}
				return false
			}
			if !has() {
				t.Error("nothing is kept of the snapshot")
			}
			w.until("what there is of a snapshot to be deleted", 2*stream.ReceiverPatience, func() bool { return !has() })
			w.node(1).start()
			w.finish()
		})
	}
}

// TestSnapshotsShareTheRate: what a host sends of snapshots, one or two at once, keeps to its rate and makes use of it.
func TestSnapshotsShareTheRate(t *testing.T) {
	const perSecond = 500
	for _, to := range [][]uint64{{2}, {2, 3}} {
		t.Run(fmt.Sprint("to ", to), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 3, 1)
				w.adjust = func(c *Config) {
					c.snapshotChunkBytes, c.RetainBytes, c.SnapshotBytesPerSecond = 400, 1, perSecond
				}
				for _, n := range w.nodes {
					n.start()
				}
				defer w.stopAll()
				w.proposing(1, 60)
				var mu sync.Mutex
				var began, ended time.Time
				sent := 0
				w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						if began.IsZero() {
							began = time.Now()
						}
						sent, ended = sent+len(chunk), time.Now()
					}
					return chunk, err
				}
				w.grow(1, append([]uint64{1}, to...)...)
				mu.Lock()
				defer mu.Unlock()
				if n := w.snapshots(); n != len(to) {
					t.Errorf("%d snapshots were taken", n)
				}
				// The last chunk of each has no rows, and little else.
				took, want := ended.Sub(began), time.Duration(sent)*time.Second/perSecond
				if took < want*9/10 || took > want*11/10 {
					t.Errorf("%d bytes took %s, want %s", sent, took, want)
				}
				t.Logf("%d bytes took %s", sent, took)
			})
		})
	}
}
