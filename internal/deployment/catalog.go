package deployment

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/vfs"
)

// Catalog is what is kept of all deployments. Its methods are safe for concurrent use; those that
// change it return once that is durable, and change nothing if they fail.
type Catalog struct {
	disk vfs.FS // nil: in memory only
	path string

	mu struct {
		sync.Mutex
		kept *recordv1.Deployments
	}
	// draining are the ids of those that drain, replaced as a whole.
	draining atomic.Pointer[map[string]bool]
}

// Draining reports whether a deployment drains. It takes no lock.
func (c *Catalog) Draining(id string) bool {
	draining := c.draining.Load()
	return draining != nil && (*draining)[id]
}

// noteLocked derives from what is kept.
func (c *Catalog) noteLocked() {
	draining := map[string]bool{}
	for _, d := range c.mu.kept.GetDeployments() {
		if d.GetStatus() == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING {
			draining[d.GetId()] = true
		}
	}
	c.draining.Store(&draining)
}

// ErrUnknown is of a deployment that the catalog does not have.
var ErrUnknown = errors.New("no such deployment")

var errUnchanged = errors.New("unchanged")

// The file is head, checksum of the rest, and an encoded recordv1.Deployments.
const (
	head      = "PDEP\x01"
	headBytes = len(head) + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// InMemory is an empty catalog that nobody keeps.
func InMemory() *Catalog {
	c := &Catalog{}
	c.mu.kept = &recordv1.Deployments{}
	return c
}

// Open reads the catalog at path, which is empty if there is no such file.
func Open(disk vfs.FS, path string) (*Catalog, error) {
	c := InMemory()
	c.disk, c.path = disk, path
	data, err := read(disk, path)
	if vfs.IsNotExist(err) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("deployments: %w", err)
	}
	if len(data) >= len(head) && string(data[:len(head)-1]) == head[:len(head)-1] && data[len(head)-1] > head[len(head)-1] {
		return nil, fmt.Errorf("deployments: %s has format %d, and this program knows up to %d: use the newer program that wrote it", path, data[len(head)-1], head[len(head)-1])
	}
	if len(data) < headBytes || string(data[:len(head)]) != head ||
		binary.BigEndian.Uint32(data[len(head):]) != crc32.Checksum(data[headBytes:], castagnoli) ||
		proto.Unmarshal(data[headBytes:], c.mu.kept) != nil {
		return nil, fmt.Errorf("deployments: %s is damaged: restore it from a backup; or remove it, and the next start takes this program for one that fits the data", path)
	}
	c.noteLocked()
	return c, nil
}

func read(disk vfs.FS, path string) ([]byte, error) {
	file, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := file.Size()
	data := make([]byte, size)
	if err == nil && size > 0 {
		_, err = file.ReadAt(data, 0)
	}
	return data, errors.Join(err, file.Close())
}

// write replaces the file as a whole, or not at all.
func (c *Catalog) write(kept *recordv1.Deployments) error {
	if c.disk == nil {
		return nil
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(kept)
	if err != nil {
		return err
	}
	data := binary.BigEndian.AppendUint32([]byte(head), crc32.Checksum(encoded, castagnoli))
	data = append(data, encoded...)
	temporary := c.path + ".new"
	file, err := c.disk.Create(temporary)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", temporary, err), c.disk.Remove(temporary))
	}
	if err := c.disk.Rename(temporary, c.path); err != nil {
		return err
	}
	return c.disk.SyncDir(filepath.Dir(c.path))
}

// change replaces what is kept by what do makes of a copy.
func (c *Catalog) change(do func(*recordv1.Deployments) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := proto.CloneOf(c.mu.kept)
	if err := do(next); err != nil {
		return err
	}
	if err := c.write(next); err != nil {
		return fmt.Errorf("deployments: %w", err)
	}
	c.mu.kept = next
	c.noteLocked()
	return nil
}

func find(kept *recordv1.Deployments, id string) *recordv1.Deployment {
	for _, d := range kept.GetDeployments() {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// List is all deployments, the one that was started last first.
func (c *Catalog) List() []*recordv1.Deployment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return newestFirst(c.mu.kept)
}

func newestFirst(kept *recordv1.Deployments) []*recordv1.Deployment {
	list := make([]*recordv1.Deployment, 0, len(kept.GetDeployments()))
	for _, d := range kept.GetDeployments() {
		list = append(list, proto.CloneOf(d))
	}
	slices.SortStableFunc(list, func(a, b *recordv1.Deployment) int {
		return cmp.Or(cmp.Compare(b.GetLastSeenAt(), a.GetLastSeenAt()), cmp.Compare(b.GetFirstSeenAt(), a.GetFirstSeenAt()))
	})
	return list
}

// Get is one deployment, or ErrUnknown.
func (c *Catalog) Get(id string) (*recordv1.Deployment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := find(c.mu.kept, id); found != nil {
		return proto.CloneOf(found), nil
	}
	return nil, ErrUnknown
}

// Schema is the descriptors of a deployment.
func (c *Catalog) Schema(id string) (*descriptorpb.FileDescriptorSet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := find(c.mu.kept, id)
	if found == nil {
		return nil, ErrUnknown
	}
	return schemaOf(found, c.mu.kept.GetFiles())
}

// LastWith is the deployment that was started last of those with a handler; empty if none has it.
func (c *Catalog) LastWith(service, handler string) string {
	c.mu.Lock()
	kept := c.mu.kept
	c.mu.Unlock()
	for _, d := range newestFirst(kept) {
		if !slices.Contains(d.GetServices(), service) {
			continue
		}
		schema, err := schemaOf(d, kept.GetFiles())
		if err != nil {
			continue // it is asked for an error's text, and the start said so already
		}
		for _, file := range schema.GetFile() {
			for _, declared := range file.GetService() {
				if strings.TrimPrefix(file.GetPackage()+"."+declared.GetName(), ".") != service {
					continue
				}
				for _, method := range declared.GetMethod() {
					if method.GetName() == handler {
						return d.GetId()
					}
				}
			}
		}
	}
	return ""
}

func schemaOf(d *recordv1.Deployment, files map[string][]byte) (*descriptorpb.FileDescriptorSet, error) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, hash := range d.GetFiles() {
		file := &descriptorpb.FileDescriptorProto{}
		encoded, ok := files[hash]
		if !ok {
			return nil, fmt.Errorf("deployment %s: the file with hash %s is missing", d.GetId(), hash)
		}
		if err := proto.Unmarshal(encoded, file); err != nil {
			return nil, fmt.Errorf("deployment %s: the file with hash %s: %w", d.GetId(), hash, err)
		}
		set.File = append(set.File, file)
	}
	return set, nil
}

// startedLast is the deployment that was started last here; nil if none was.
func startedLast(kept *recordv1.Deployments) *recordv1.Deployment {
	if found := find(kept, kept.GetStarted()); found != nil {
		return found
	}
	if list := newestFirst(kept); len(list) > 0 {
		return list[0]
	}
	return nil
}

// Restarts reports whether a build has the descriptors of the one that was started last on this node,
// whatever others have been started with since.
func (c *Catalog) Restarts(b *Build) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return startedLast(c.mu.kept).GetFingerprint() == b.record.GetFingerprint()
}

// Started notes that a build has been started, with the breaking changes that an operator has
// accepted for it. A restart of the one that was started last changes nothing. It keeps a deployment draining that is started again by itself, and makes one
// active that others have run after.
func (c *Catalog) Started(b *Build, accepted []string, now time.Time) error {
	err := c.change(func(kept *recordv1.Deployments) error {
		last, here := newestFirst(kept), startedLast(kept)
		known := find(kept, b.ID())
		if known == nil {
			known = proto.CloneOf(b.record)
			kept.Deployments = append(kept.Deployments, known)
		}
		if known.GetFingerprint() != b.record.GetFingerprint() {
			return fmt.Errorf("%s is the name of another build, with other descriptors: name each build differently", b.ID())
		}
		kept.Started = b.ID()
		if here.GetId() == b.ID() && len(accepted) == 0 && here.GetBuild() == b.record.GetBuild() &&
			here.GetStatus() != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED {
			return errUnchanged
		}
		if here.GetId() != b.ID() || known.GetStatus() == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED {
			known.Status = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE
		}
		known.Build, known.PerdureVersion = b.record.GetBuild(), b.record.GetPerdureVersion()
		known.LastSeenAt = now.UnixMilli()
		if len(last) > 0 { // clocks go backwards; the order of starts does not
			known.LastSeenAt = max(known.LastSeenAt, last[0].GetLastSeenAt()+1)
		}
		if known.GetFirstSeenAt() == 0 {
			known.FirstSeenAt = known.LastSeenAt
		}
		if len(accepted) > 0 {
			known.Accepted = accepted
		}
		if kept.Files == nil {
			kept.Files = map[string][]byte{}
		}
		for hash, file := range b.files {
			kept.Files[hash] = file
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// Adopt makes of it what the cluster's catalog is: rows, and of its own those that keep picks. file reads the
// descriptors that it does not have. Of the rows it keeps nothing.
func (c *Catalog) Adopt(rows []*recordv1.Deployment, keep func(id string) bool, file func(hash string) ([]byte, error)) error {
	// Whether one drains must not wait for a disk, or for another one's descriptors.
	draining := map[string]bool{}
	for _, row := range rows {
		if row.GetStatus() == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING {
			draining[row.GetId()] = true
		}
	}
	c.draining.Store(&draining)
	err := c.change(func(kept *recordv1.Deployments) error {
		before := proto.CloneOf(kept)
		own := kept.Deployments
		kept.Deployments = nil
		for _, row := range rows {
			kept.Deployments = append(kept.Deployments, proto.CloneOf(row))
		}
		for _, row := range own {
			if find(kept, row.GetId()) == nil && keep(row.GetId()) {
				kept.Deployments = append(kept.Deployments, row)
			}
		}
		had := kept.Files
		kept.Files = map[string][]byte{}
		for _, row := range kept.Deployments {
			for _, hash := range row.GetFiles() {
				data, known := had[hash]
				if !known {
					var err error
					if data, err = file(hash); err != nil {
						return fmt.Errorf("deployment %s: %w", row.GetId(), err)
					}
				}
				kept.Files[hash] = data
			}
		}
		if proto.Equal(before, kept) {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// File is the descriptors with a hash; nil if the catalog does not have them.
func (c *Catalog) File(hash string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.kept.GetFiles()[hash]
}

// SetStatus changes the status of a deployment.
func (c *Catalog) SetStatus(id string, status recordv1.DeploymentStatus) error {
	return c.change(func(kept *recordv1.Deployments) error {
		known := find(kept, id)
		if known == nil {
			return ErrUnknown
		}
		known.Status = status
		return nil
	})
}
