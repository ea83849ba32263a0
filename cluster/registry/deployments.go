package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage"
)

// DeploymentsLevel is the feature level with which group 0 keeps deployments: a leader of an older version would
// refuse what is asked for.
const DeploymentsLevel = 2

// The bounds of what group 0 keeps of deployments: every node has a copy of it.
const (
	// MaxDeployments that are known, and MaxFileBytes of all their files together. What was started longest ago
	// makes room, unless a node was started with it or no later one has its services.
	MaxDeployments = 200
	MaxFileBytes   = 64 << 20
	// MaxPartBytes is the most that one StoreFile has: a value of the store, and a record, take it.
	MaxPartBytes = 256 << 10
)

// inUse reports whether a node, removed ones aside, was started with a deployment last.
func (s *state) inUse(id string) bool {
	for _, node := range s.nodes {
		if node.State != recordv1.NodeState_NODE_STATE_REMOVED && node.Deployment == id {
			return true
		}
	}
	return false
}

// storeFile is asked for part by part. One that is there already changes nothing.
func (s *state) storeFile(c *recordv1.ClusterChange_StoreFile) error {
	if s.settings.FeatureLevel < DeploymentsLevel {
		return fmt.Errorf("%w: the cluster may write records of feature level %d, and deployments are of level %d", ErrInvalid, s.settings.FeatureLevel, DeploymentsLevel)
	}
	hash, err := hex.DecodeString(c.GetHash())
	end := c.GetOffset() + uint64(len(c.GetPart()))
	if err != nil || len(hash) != sha256.Size || c.GetBytes() > MaxFileBytes || c.GetOffset()%MaxPartBytes != 0 ||
		len(c.GetPart()) == 0 || end != min(c.GetOffset()+MaxPartBytes, c.GetBytes()) {
		return fmt.Errorf("%w: a part of %d bytes at %d of a file of %d bytes with hash %q; all parts but the last have %d bytes, and a file at most %d",
			ErrInvalid, len(c.GetPart()), c.GetOffset(), c.GetBytes(), c.GetHash(), MaxPartBytes, MaxFileBytes)
	}
	file := s.files[c.GetHash()]
	switch stored := file.GetStored(); {
	case file != nil && file.GetBytes() != c.GetBytes():
		return fmt.Errorf("%w: file %s has %d bytes, not %d", ErrInvalid, c.GetHash(), file.GetBytes(), c.GetBytes())
	case stored >= end:
		return nil
	case stored != c.GetOffset():
		return fmt.Errorf("%w: of file %s there are %d bytes, and a part at %d was sent", ErrStale, c.GetHash(), stored, c.GetOffset())
	}
	if file == nil {
		if err := s.makeRoom(0, c.GetBytes()); err != nil {
			return err
		}
	}
	s.files[c.GetHash()] = &recordv1.ClusterFile{Bytes: c.GetBytes(), Stored: end}
	if s.parts == nil {
		s.parts = map[string][]byte{}
	}
	s.parts[string(partKey(hash, c.GetOffset()))] = c.GetPart()
	return nil
}

// register adds a deployment, and says that a node is started with it. That a deployment was compared with those
// that are known is whoever asks' to see to; catalog says that there was no other since.
func (s *state) register(c *recordv1.ClusterChange_Register, now int64) error {
	told := c.GetDeployment()
	if told.GetId() == "" || len(told.GetId()) > 128 || told.GetFingerprint() == "" {
		return fmt.Errorf("%w: a deployment has an id of 1 to 128 bytes and a fingerprint: %q, %q", ErrInvalid, told.GetId(), told.GetFingerprint())
	}
	if s.settings.FeatureLevel < DeploymentsLevel {
		return fmt.Errorf("%w: the cluster may write records of feature level %d, and deployments are of level %d", ErrInvalid, s.settings.FeatureLevel, DeploymentsLevel)
	}
	known := s.deployments[told.Id]
	if known != nil && known.Fingerprint != told.Fingerprint {
		return fmt.Errorf("%w: %s is the name of another build in this cluster, with other descriptors (fingerprint %.12s, and this one's is %.12s): name each build differently",
			ErrInvalid, told.Id, known.Fingerprint, told.Fingerprint)
	}
	for _, hash := range told.Files {
		if file := s.files[hash]; file == nil || file.Stored < file.Bytes {
			return fmt.Errorf("%w: file %s of deployment %s is not stored", ErrStale, hash, told.Id)
		}
	}
	if c.GetNode() == 0 {
		if known != nil || len(s.deployments) == MaxDeployments {
			return nil // nothing makes room for what ran long ago
		}
		s.deployments[told.Id] = proto.CloneOf(told)
		s.turnPage()
		return nil
	}
	return s.start(c, known, now)
}

// start is register for a node that is started.
func (s *state) start(c *recordv1.ClusterChange_Register, known *recordv1.Deployment, now int64) error {
	told, node := c.GetDeployment(), s.nodes[c.GetNode()]
	switch {
	case node == nil:
		return fmt.Errorf("%w: %016x", ErrNoSuchNode, c.GetNode())
	case node.State == recordv1.NodeState_NODE_STATE_REMOVED:
		return removed(c.GetNode())
	case c.GetCatalog() != s.settings.Catalog:
		return fmt.Errorf("%w: deployments have changed since deployment %s was compared with them", ErrStale, told.Id)
	}
	next := proto.CloneOf(told)
	if known != nil {
		next = proto.CloneOf(known)
		next.Build, next.PerdureVersion = told.Build, told.PerdureVersion
		for _, change := range told.Accepted {
			if !slices.Contains(next.Accepted, change) {
				next.Accepted = append(next.Accepted, change)
			}
		}
	} else if err := s.makeRoom(1, 0, told.Files...); err != nil {
		return err
	}
	// One that drains goes on draining for as long as a node has it, or if it did before it was known here.
	if known == nil || known.Status == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED || !s.inUse(told.Id) {
		if known != nil || told.Status != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING {
			next.Status = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE
		}
		if last := newest(s.deployments); last == nil || last.Id != told.Id {
			next.LastSeenAt = max(now, last.GetLastSeenAt()+1) // clocks go backwards; the order of starts does not
		}
	}
	if next.FirstSeenAt == 0 {
		next.FirstSeenAt = next.LastSeenAt
	}
	changed := node.Deployment != told.Id
	if changed {
		node = proto.CloneOf(node)
		node.Deployment = told.Id
		s.nodes[node.Id] = node
	}
	if !proto.Equal(known, next) {
		s.deployments[told.Id] = next
		changed = true
	}
	if known == nil {
		s.dropFiles()
	}
	if changed {
		s.turnPage()
	}
	return nil
}

// setDeployment is the operator's. Whether anything is tied to a deployment is not known here.
func (s *state) setDeployment(id string, to recordv1.DeploymentStatus) error {
	known := s.deployments[id]
	switch to {
	case recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE, recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING:
	case recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED:
		for _, node := range slices.Sorted(maps.Keys(s.nodes)) {
			if row := s.nodes[node]; row.State != recordv1.NodeState_NODE_STATE_REMOVED && row.Deployment == id {
				return fmt.Errorf("%w: deployment %s is what node %016x was started with last: start another one there, or remove the node if it is gone", ErrInvalid, id, node)
			}
		}
	default:
		return fmt.Errorf("%w: status %d", ErrInvalid, to)
	}
	switch {
	case known == nil:
		return fmt.Errorf("%w: %q", ErrNoSuchDeployment, id)
	case known.Status == to:
		return nil
	case known.Status == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED:
		return fmt.Errorf("%w: deployment %s is removed: starting it makes it active again", ErrInvalid, id)
	}
	known = proto.CloneOf(known)
	known.Status = to
	s.deployments[id] = known
	s.dropFiles()
	s.turnPage()
	return nil
}

func (s *state) turnPage() {
	s.settings = proto.CloneOf(s.settings)
	s.settings.Catalog++
}

// newestFirst are rows in the order of their last starts.
func newestFirst(rows map[string]*recordv1.Deployment) []*recordv1.Deployment {
	return slices.SortedFunc(maps.Values(rows), func(a, b *recordv1.Deployment) int {
		return cmp.Or(cmp.Compare(b.LastSeenAt, a.LastSeenAt), cmp.Compare(b.FirstSeenAt, a.FirstSeenAt), cmp.Compare(a.Id, b.Id))
	})
}

func newest(rows map[string]*recordv1.Deployment) *recordv1.Deployment {
	if list := newestFirst(rows); len(list) > 0 {
		return list[0]
	}
	return nil
}

// makeRoom forgets what it can of deployments, the one that was started longest ago first, until more fit. Files
// of none stay: somebody who is about to register needs them, and would send them for ever.
func (s *state) makeRoom(rows int, bytes uint64, needed ...string) error {
	fits := func() bool {
		total := bytes
		for _, file := range s.files {
			total += file.GetBytes()
		}
		return len(s.deployments)+rows <= MaxDeployments && total <= MaxFileBytes
	}
	if fits() {
		return nil
	}
	for !fits() {
		id := s.superseded()
		if id == "" {
			return fmt.Errorf("%w: the cluster's catalog of deployments is full: there are %d of at most %d, with at most %d bytes of descriptors, and each is run by a node or the last one with a service: remove some (perdure deployments remove), or nodes that are gone",
				ErrInvalid, len(s.deployments), MaxDeployments, MaxFileBytes)
		}
		files := s.deployments[id].Files
		delete(s.deployments, id)
		used := s.usedFiles(needed...)
		for _, hash := range files {
			if !used[hash] {
				delete(s.files, hash)
			}
		}
		s.turnPage()
	}
	return nil
}

// superseded is the deployment that was started longest ago of those that no node has, and that tell nothing about
// what is kept that a later one does not; "" if there is none.
func (s *state) superseded() string {
	covered := map[string]bool{}
	last := ""
	for _, row := range newestFirst(s.deployments) {
		needed := s.inUse(row.Id)
		for _, service := range row.Services {
			needed = needed || !covered[service] && row.Status != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED
		}
		for _, service := range row.Services {
			covered[service] = covered[service] || row.Status != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED
		}
		if !needed {
			last = row.Id
		}
	}
	return last
}

// dropFiles forgets the files that no deployment has. Whoever was about to register one that has them finds out,
// and sends them again.
func (s *state) dropFiles() {
	used := s.usedFiles()
	maps.DeleteFunc(s.files, func(hash string, _ *recordv1.ClusterFile) bool { return !used[hash] })
}

func (s *state) usedFiles(needed ...string) map[string]bool {
	used := map[string]bool{}
	for _, hash := range needed {
		used[hash] = true
	}
	for _, row := range s.deployments {
		for _, hash := range row.Files {
			used[hash] = true
		}
	}
	return used
}

// recordDeployments adds to a batch what makes the deployments and files of one state those of the other.
func recordDeployments(batch *storage.Batch, from, to state, put func([]byte, proto.Message) error) error {
	for _, id := range slices.Sorted(maps.Keys(from.deployments)) {
		if to.deployments[id] == nil {
			batch.Delete(deploymentKey(id))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(to.deployments)) {
		if row := to.deployments[id]; from.deployments[id] != row && !proto.Equal(from.deployments[id], row) {
			if err := put(deploymentKey(id), row); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(from.files)) {
		file, hash := from.files[name], decoded(name)
		if to.files[name] != nil {
			continue
		}
		batch.Delete(fileKey(hash))
		for at := uint64(0); at < file.Stored; at += MaxPartBytes {
			batch.Delete(partKey(hash, at))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(to.files)) {
		if file := to.files[name]; from.files[name] != file && !proto.Equal(from.files[name], file) {
			if err := put(fileKey(decoded(name)), file); err != nil {
				return err
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(to.parts)) {
		batch.Put([]byte(key), to.parts[key])
	}
	return nil
}

// decoded is a hash that was checked when it was stored.
func decoded(name string) []byte {
	hash, _ := hex.DecodeString(name)
	return hash
}

// Stored is how many bytes of a file are there, from the first one on, and how many it has; both are 0 if nothing of
// it is.
func (v *View) Stored(hash string) (stored, bytes uint64) {
	file := v.files[hash]
	return file.GetStored(), file.GetBytes()
}

// ErrNotApplied says that this node's store does not have a file yet, which its View may be ahead of.
var ErrNotApplied = errors.New("this node does not have it yet")

// File reads a file of a deployment from this node's store. The error is ErrNotApplied, or says that it is damaged.
func (r *Registry) File(name string) ([]byte, error) {
	hash, err := hex.DecodeString(name)
	if err != nil {
		return nil, fmt.Errorf("registry: file %q: %w", name, err)
	}
	snapshot := r.group.Snapshot()
	defer snapshot.Release()
	value, found, err := snapshot.Get(fileKey(hash))
	file := &recordv1.ClusterFile{}
	if err == nil && found {
		err = proto.Unmarshal(value, file)
	}
	if err != nil {
		return nil, fmt.Errorf("registry: file %s: %w", name, err)
	}
	if !found || file.Stored < file.Bytes {
		return nil, fmt.Errorf("registry: file %s: %w", name, ErrNotApplied)
	}
	data := make([]byte, 0, file.Bytes)
	for uint64(len(data)) < file.Bytes {
		part, found, err := snapshot.Get(partKey(hash, uint64(len(data))))
		if err == nil && (!found || len(part) == 0) {
			err = errors.New("it is damaged: a part is missing")
		}
		if err != nil {
			return nil, fmt.Errorf("registry: file %s at %d: %w", name, len(data), err)
		}
		data = append(data, part...)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != name {
		return nil, fmt.Errorf("registry: file %s is damaged: it has another hash", name)
	}
	return data, nil
}

func deploymentKey(id string) []byte { return append([]byte{rowDeployment}, id...) }

func fileKey(hash []byte) []byte { return append([]byte{rowFile}, hash...) }

func partKey(hash []byte, offset uint64) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{rowPart}, hash...), uint32(offset))
}

// StorePart is the change that adds a part of a file.
func StorePart(hash string, bytes, offset uint64, part []byte) *recordv1.ClusterChange {
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_File{File: &recordv1.ClusterChange_StoreFile{Hash: hash, Bytes: bytes, Offset: offset, Part: part}}}
}

// Registration is the change that says that a node is started with a deployment, which was compared with those of
// View.Catalog. All its files must be stored. Of node 0, it adds a deployment that ran before and that is not known.
func Registration(node uint64, deployment *recordv1.Deployment, catalog uint64) *recordv1.ClusterChange {
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_Register_{Register: &recordv1.ClusterChange_Register{Node: node, Deployment: deployment, Catalog: catalog}}}
}

// DeploymentChange is the change of a deployment's status.
func DeploymentChange(id string, to recordv1.DeploymentStatus) *recordv1.ClusterChange {
	return &recordv1.ClusterChange{Change: &recordv1.ClusterChange_Deployment{Deployment: &recordv1.ClusterChange_SetDeployment{Id: id, Status: to}}}
}
