package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/storage/vfs"
)

// layout is an open data directory:
//
//	DIR/lock         held by the process that uses the directory
//	DIR/node.json    who the node is; written once
//	DIR/deployments  which builds have run on it, or in its cluster
//	DIR/members      where other nodes were last
//	DIR/refused      why it must not be used any more, if other nodes refused it
//	DIR/log/         the node log
//	DIR/store/       the store
type layout struct {
	dir      string
	identity identity
	lock     io.Closer
	// opened is called once log and store are open, before anything runs; nil: nobody cares.
	opened func() error
	// lastWith is the newest deployment with a handler, empty if none has it; nil: nobody knows.
	lastWith func(service, handler string) string
}

// existing is a cluster that a node without data becomes a member of.
type existing struct {
	clusterID  string
	partitions uint32
}

// formatVersion of the data directory as a whole; log and store have versions of their own.
const formatVersion = 1

// identity is what node.json holds.
type identity struct {
	FormatVersion int `json:"format_version"`
	// NodeID is this node's Raft identity: 16 hexadecimal digits, never 0, never reused.
	NodeID string `json:"node_id"`
	// ClusterID is the same on all nodes of a cluster.
	ClusterID  string    `json:"cluster_id"`
	Partitions uint32    `json:"partitions"`
	CreatedAt  time.Time `json:"created_at"`
	// Joined: the cluster was there before this node, whose replicas are made by others.
	Joined bool `json:"joined,omitempty"`

	raftID uint64
}

func (l *layout) logDir() string   { return filepath.Join(l.dir, "log") }
func (l *layout) storeDir() string { return filepath.Join(l.dir, "store") }

// deploymentsFile is the catalog of internal/deployment.
func (l *layout) deploymentsFile() string { return filepath.Join(l.dir, "deployments") }

func (l *layout) close() error {
	if l.lock == nil { // in memory
		return nil
	}
	return l.lock.Close()
}

// memoryLayout is a node's identity for as long as the node is there.
func memoryLayout(partitions uint32) (*layout, error) {
	l := &layout{dir: "/memory"}
	return l, l.found(partitions)
}

// openLayout locks dir and reads who the node is, or makes it someone if dir is empty.
// partitions is 0 for what the directory says. join, if not nil, is asked by an empty directory
// for the cluster to become a member of; nil from it means that there is none and one is founded.
func openLayout(dir string, partitions uint32, join func(own identity, dir string) (*existing, error)) (*layout, error) {
	var disk vfs.OS
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if err := disk.MkdirAll(absolute); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", absolute, err)
	}
	lock, err := disk.Lock(filepath.Join(absolute, "lock"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another node: stop that one, or give this one a directory of its own: %w", absolute, err)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", absolute, err)
	}
	l := &layout{dir: absolute, lock: lock}
	if err := l.identify(disk, partitions, join); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", absolute, err), lock.Close())
	}
	return l, nil
}

func (l *layout) identify(disk vfs.FS, partitions uint32, join func(own identity, dir string) (*existing, error)) error {
	path := filepath.Join(l.dir, "node.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l.create(disk, path, partitions, join)
	}
	if err != nil {
		return err
	}
	// The version first: the rest of a newer format may not even parse.
	var version struct {
		FormatVersion int `json:"format_version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return fmt.Errorf("node.json is damaged: %w: restore it from a backup; without it the node does not know who it is", err)
	}
	if version.FormatVersion > formatVersion {
		return fmt.Errorf("its format version is %d, and this program (%s) knows up to %d: use the newer program that wrote it", version.FormatVersion, Version(), formatVersion)
	}
	if err := json.Unmarshal(data, &l.identity); err != nil {
		return fmt.Errorf("node.json is damaged: %w: restore it from a backup; without it the node does not know who it is", err)
	}
	l.identity.raftID, err = strconv.ParseUint(l.identity.NodeID, 16, 64)
	if err != nil || l.identity.raftID == 0 || version.FormatVersion < 1 || l.identity.Partitions == 0 {
		return fmt.Errorf("node.json is damaged: format version %d, node id %q, %d partitions: restore it from a backup",
			version.FormatVersion, l.identity.NodeID, l.identity.Partitions)
	}
	if partitions != 0 && partitions != l.identity.Partitions {
		return fmt.Errorf("it was created with %d partitions, and the configuration says %d: the number is fixed, for it decides where every object is; set it to %d or leave it out",
			l.identity.Partitions, partitions, l.identity.Partitions)
	}
	return nil
}

func (l *layout) create(disk vfs.FS, path string, partitions uint32, join func(own identity, dir string) (*existing, error)) error {
	for _, dir := range []string{l.logDir(), l.storeDir()} {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return fmt.Errorf("node.json is missing, but there is data in %s: restore it from a backup, or name an empty directory", dir)
		}
	}
	if err := l.found(partitions); err != nil {
		return err
	}
	if join != nil {
		joined, err := join(l.identity, l.dir)
		if err != nil {
			return err
		}
		if joined != nil {
			if partitions != 0 && partitions != joined.partitions {
				return fmt.Errorf("the cluster to join has %d partitions, and the configuration says %d: the number is fixed when a cluster is founded; set it to %d or leave it out",
					joined.partitions, partitions, joined.partitions)
			}
			l.identity.ClusterID, l.identity.Partitions, l.identity.Joined = joined.clusterID, joined.partitions, true
		}
	}
	data, err := json.MarshalIndent(l.identity, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(disk, path, append(data, '\n'))
}

// checkLog refuses a directory whose log was lost, before a new one lies where the old one has to
// be put back. A store without data proves nothing: the log is made first.
func (l *layout) checkLog() error {
	stored, err := os.ReadDir(l.storeDir())
	if err != nil || len(stored) == 0 {
		return nil // what is wrong with it, opening it will say
	}
	logged, err := os.ReadDir(l.logDir())
	if err == nil && len(logged) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s is missing or empty, but there is data in %s, which is only part of what was acknowledged: restore both from one backup", l.logDir(), l.storeDir())
}

// checkPartitions compares node.json with the groups that the log has: group 0, but in directories of
// early versions, and one for each partition. They are made all at once, so another number means
// that node.json is damaged; with it, objects would be looked for in partitions where they are not. A
// node that joined has those that the cluster gave it, and group 0 tells it how many there are.
func (l *layout) checkPartitions(groups []uint32) error {
	logged := len(groups)
	if slices.Contains(groups, 0) {
		logged--
	}
	if l.identity.Joined {
		for _, id := range groups {
			logged = max(logged, int(id))
		}
	}
	if logged == 0 || logged == int(l.identity.Partitions) || l.identity.Joined && logged < int(l.identity.Partitions) {
		return nil
	}
	return fmt.Errorf("data directory %s: node.json says %d partitions, the log has %d: node.json is damaged or another node's: restore it from a backup",
		l.dir, l.identity.Partitions, logged)
}

// found makes the node someone, in a cluster of its own.
func (l *layout) found(partitions uint32) error {
	if partitions == 0 {
		partitions = DefaultPartitions
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	// Raft reserves 0 and the two highest numbers.
	id := max(binary.BigEndian.Uint64(random[:])>>1, 1)
	l.identity = identity{
		FormatVersion: formatVersion, NodeID: fmt.Sprintf("%016x", id), raftID: id,
		ClusterID: uuid.NewString(), Partitions: partitions, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	return nil
}

// writeDurably replaces a file as a whole, or not at all.
func writeDurably(disk vfs.FS, path string, data []byte) error {
	temporary := path + ".new"
	file, err := disk.Create(temporary)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", temporary, err), disk.Remove(temporary))
	}
	if err := disk.Rename(temporary, path); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}
