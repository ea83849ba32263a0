// Package deployment keeps which builds of the handlers have run on a node's data, and finds out
// before one runs whether it can read what the others have left.
//
// A deployment is one build: the descriptors of its services, whose hash is its fingerprint, and
// what the build says of itself. The Catalog is a small file beside the data, replaced as a whole. In
// a cluster it is the node's copy of what group 0 keeps (cluster/catalog).
package deployment

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Service is one that a build serves. File is nil if its descriptor is not known, which only a
// service can be that no generated code describes: it is not compared.
type Service struct {
	Name string
	File protoreflect.FileDescriptor
}

// Build is a deployment before it is in a Catalog.
type Build struct {
	record *recordv1.Deployment
	files  map[string][]byte
}

// Describe makes the deployment of a build. name is its id, or empty for one that follows from
// services and build, which says what sources the program was made of.
func Describe(name, build, version string, services []Service) (*Build, error) {
	b := &Build{files: map[string][]byte{}, record: &recordv1.Deployment{
		Id: name, Build: build, PerdureVersion: version, Status: recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE,
	}}
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b Service) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	seen := map[string]bool{}
	all := sha256.New()
	for _, service := range services {
		b.record.Services = append(b.record.Services, service.Name)
		fmt.Fprintf(all, "service %q\n", service.Name)
		if service.File == nil {
			continue
		}
		if err := b.add(service.File, seen); err != nil {
			return nil, err
		}
	}
	for _, hash := range b.record.Files {
		fmt.Fprintf(all, "file %s\n", hash)
	}
	b.record.Fingerprint = hex.EncodeToString(all.Sum(nil))
	if name == "" {
		sum := sha256.Sum256([]byte(b.record.Fingerprint + " " + build))
		b.record.Id = "dep_" + hex.EncodeToString(sum[:8])
	}
	return b, nil
}

// add takes a file in after all that it imports.
func (b *Build) add(file protoreflect.FileDescriptor, seen map[string]bool) error {
	if seen[file.Path()] || file.IsPlaceholder() {
		return nil
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		if err := b.add(imports.Get(i).FileDescriptor, seen); err != nil {
			return err
		}
	}
	described := protodesc.ToFileDescriptorProto(file)
	described.SourceCodeInfo = nil // a comment makes no other deployment
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(described)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Path(), err)
	}
	sum := sha256.Sum256(encoded)
	hash := hex.EncodeToString(sum[:])
	b.files[hash] = encoded
	b.record.Files = append(b.record.Files, hash)
	return nil
}

// ID names the deployment.
func (b *Build) ID() string { return b.record.GetId() }

// Record is the deployment as it is kept, before it was started.
func (b *Build) Record() *recordv1.Deployment { return proto.CloneOf(b.record) }

// File is the descriptors with a hash; nil if the build has none.
func (b *Build) File(hash string) []byte { return b.files[hash] }

// namePattern keeps names fit for tables, flags and URLs.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName refuses what can't name a deployment. The empty name is fine.
func CheckName(name string) error {
	if name != "" && !namePattern.MatchString(name) {
		return fmt.Errorf("deployment is %q; a name has up to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit", name)
	}
	return nil
}
