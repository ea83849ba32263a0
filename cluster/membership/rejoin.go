package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/perdure/perdure/internal/telemetry"
)

const (
	// askAtOnce bounds how many nodes are asked in one round, askParallel how many at a time.
	askAtOnce   = 32
	askParallel = 8
	// complainAfter is how long a node may be alone before its log says so, once each time.
	complainAfter = 15 * time.Second
)

// known are addresses of members of earlier processes.
type known struct {
	path      string
	addresses []string
	failed    string // the last error of writing, which is logged once
}

// knownFile is the file's form.
type knownFile struct {
	Version int      `json:"version"`
	Gossip  []string `json:"gossip"`
}

func loadKnown(path string) (known, error) {
	k := known{path: path}
	if path == "" {
		return k, nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	} else if err != nil {
		return k, fmt.Errorf("membership: known members: %w", err)
	}
	var file knownFile
	// It is a hint: one that can't be read is as good as none.
	if json.Unmarshal(content, &file) == nil && file.Version == 1 {
		k.addresses = file.Gossip
	}
	return k, nil
}

// saveKnown writes the addresses of the other members, if they have changed.
func (m *Membership) saveKnown() {
	m.mu.Lock()
	stale := m.mu.stale
	m.mu.stale = false
	file := knownFile{Version: 1}
	for _, member := range m.mu.table.members() {
		if !member.Self && member.State != Left {
			file.Gossip = append(file.Gossip, member.Gossip)
		}
	}
	m.mu.Unlock()
	// Who knows nobody keeps what an earlier process knew.
	if m.config.KnownFile == "" || !stale || len(file.Gossip) == 0 {
		return
	}
	slices.Sort(file.Gossip)
	content, err := json.Marshal(file)
	if err == nil {
		temporary := m.config.KnownFile + ".new"
		if err = os.WriteFile(temporary, append(content, '\n'), 0o600); err == nil {
			err = os.Rename(temporary, m.config.KnownFile)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.known.failed = ""
		return
	}
	m.mu.stale = true
	if m.known.failed != err.Error() {
		m.known.failed = err.Error()
		m.config.Logger.Warn("the known members cannot be written down; after a restart this node finds the others by its seeds alone", telemetry.KeyPath, m.config.KnownFile, telemetry.KeyError, err)
	}
}

// rejoin asks nodes that are not among the members, for ever.
func (m *Membership) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	var aloneSince time.Time
	complained := map[string]bool{}
	for ctx.Err() == nil {
		failures := m.ask(ctx, list)
		pause := m.config.Timing.Rejoin
		if m.alive.Load() <= 1 {
			pause = m.config.Timing.Alone
			if aloneSince.IsZero() {
				aloneSince = time.Now()
			}
		} else {
			aloneSince = time.Time{}
			clear(complained)
		}
		// One that is alone says so; two clusters that meet are a mistake at any time.
		for address, err := range failures {
			foreign := strings.Contains(err.Error(), "two clusters share")
			if !complained[address] && ctx.Err() == nil && (foreign || !aloneSince.IsZero() && time.Since(aloneSince) > complainAfter) {
				complained[address] = true
				m.config.Logger.Warn("a node could not be joined; it is tried again for ever", telemetry.KeyAddress, address, telemetry.KeyError, err)
			}
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// ask tries to join all that are known and not among the members, and returns what failed.
func (m *Membership) ask(ctx context.Context, list *memberlist.Memberlist) map[string]error {
	failures := map[string]error{}
	m.mu.Lock()
	there := map[string]bool{m.mu.address: true}
	var others []string
	for _, i := range m.mu.table {
		switch i.State {
		case Alive:
			there[i.Gossip] = true
		case Dead:
			others = append(others, i.Gossip)
		}
	}
	m.mu.Unlock()
	others = append(others, m.known.addresses...)
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	wanted := map[string]bool{}
	for _, seed := range m.config.Seeds {
		host, port, err := hostPort(seed)
		if err != nil {
			continue // refused by Validate
		}
		addresses, err := m.lookUp(ctx, host)
		if err != nil {
			failures[seed] = err
			continue
		}
		rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
		for _, address := range addresses {
			if at := netip.AddrPortFrom(address, uint16(port)).String(); !there[at] {
				wanted[at] = true
			}
		}
	}
	for _, address := range others {
		if len(wanted) < askAtOnce && !there[address] {
			wanted[address] = true
		}
	}
	parallel := askParallel
	if m.ClusterID() == "" {
		// The first that answers decides which cluster this is, and the next is told so: otherwise
		// seeds of two clusters could both take this node for one that joins theirs.
		parallel = 1
	}
	var mu sync.Mutex
	inParallel(parallel, slices.Collect(maps.Keys(wanted)), func(address string) {
		if ctx.Err() != nil {
			return
		}
		if _, err := list.Join([]string{address}); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failures[address] = errors.New(strings.Join(strings.Fields(err.Error()), " "))
		}
	})
	return failures
}

// inParallel runs f for each, so many at a time.
func inParallel[T any](parallel int, all []T, f func(T)) {
	var group sync.WaitGroup
	places := make(chan struct{}, parallel)
	for _, one := range all {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			f(one)
		})
	}
	group.Wait()
}
