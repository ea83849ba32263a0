package deployment

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Carried is a build as another node told of it.
type Carried struct {
	ID string
	// Services are full names, sorted.
	Services []string
	// Schema has the files of those that have descriptors, each after those that it imports.
	Schema *descriptorpb.FileDescriptorSet
}

// Encode writes a build for other nodes, always in the same way.
func (b *Build) Encode() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(&recordv1.Deployments{Deployments: []*recordv1.Deployment{b.record}, Files: b.files})
}

// Sum names what Encode wrote.
func Sum(encoded []byte) [sha256.Size]byte { return sha256.Sum256(encoded) }

// Decode reads what Encode wrote on another node.
func Decode(encoded []byte) (*Carried, error) {
	told := &recordv1.Deployments{}
	if err := proto.Unmarshal(encoded, told); err != nil {
		return nil, err
	}
	if len(told.GetDeployments()) != 1 {
		return nil, fmt.Errorf("it tells of %d deployments, not of one", len(told.GetDeployments()))
	}
	d := told.GetDeployments()[0]
	if d.GetId() == "" {
		return nil, errors.New("its deployment has no id")
	}
	schema, err := schemaOf(d, told.GetFiles())
	if err != nil {
		return nil, err
	}
	return &Carried{ID: d.GetId(), Services: d.GetServices(), Schema: schema}, nil
}
