// Package compat finds the changes between two versions of a schema that break what a running
// system keeps: those in perdure's options, which `buf breaking` cannot see, and those in the
// messages that are stored.
package compat

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/codegen/schema"
)

// Severity says what to do about a change.
type Severity int

const (
	// Breaking changes must not be deployed over data of the old version.
	Breaking Severity = iota
	// Warning changes are safe for the data, but may surprise callers.
	Warning
)

// String is "breaking" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "breaking"
}

// Kept says what of a service a change is about: it does no harm where nothing of that is kept.
type Kept int

const (
	// KeptAnything is state, rows, promises, signals and invocations that have not ended.
	KeptAnything Kept = iota
	// KeptState is the states of objects.
	KeptState
	// KeptRows are the rows of tables.
	KeptRows
	// KeptPromises are those that were resolved or are awaited.
	KeptPromises
	// KeptInvocations are those of one handler that have not ended, and signals not received.
	KeptInvocations
)

// Affected is what a change may break.
type Affected struct {
	Service protoreflect.FullName
	// Handler is the rpc; empty if Kept is not KeptInvocations.
	Handler protoreflect.Name
	Kept    Kept
}

// Change is one difference, positioned in the new version, or in the old one if what it is about
// is gone.
type Change struct {
	Severity Severity
	schema.Problem
	// Affected has one item at least: a message may be the state of several services.
	Affected []Affected
}

// String is "bank/v1/bank.proto:12:3: bank.v1.AccountService: breaking: message".
func (c Change) String() string {
	p := c.Problem
	p.Message = c.Severity.String() + ": " + p.Message
	return p.String()
}

// Compare reads two encoded google.protobuf.FileDescriptorSet, as `buf build -o x.binpb` and
// `protoc --descriptor_set_out --include_imports --include_source_info` write them, and returns
// the changes in order of position. It fails if either is no such set, or holds perdure options
// that protoc-gen-go-perdure would refuse.
func Compare(previous, next []byte) ([]Change, error) {
	before, beforeErr := read("old", previous)
	after, afterErr := read("new", next)
	if err := errors.Join(beforeErr, afterErr); err != nil {
		return nil, err
	}
	return compare(before, after), nil
}

// Side is a schema of which only some services are served.
type Side struct {
	Set *descriptorpb.FileDescriptorSet
	// Services are their full names.
	Services []string
}

// CompareServed is Compare for what two builds serve. A side may serve nothing.
func CompareServed(previous, next Side) ([]Change, error) {
	before, beforeErr := readSet("old", previous.Set)
	after, afterErr := readSet("new", next.Set)
	if err := errors.Join(beforeErr, afterErr); err != nil {
		return nil, err
	}
	before.serve(previous.Services)
	after.serve(next.Services)
	return compare(before, after), nil
}

func compare(before, after *version) []Change {
	c := comparison{after: after}
	for _, name := range before.names {
		c.service(before.services[name], after.services[name])
	}
	slices.SortStableFunc(c.changes, func(a, b Change) int { return a.Compare(b.Problem) })
	return c.changes
}

// version is one side of the comparison.
type version struct {
	files    *protoregistry.Files
	services map[protoreflect.FullName]*schema.Service
	// Keys of services in the order of the set.
	names []protoreflect.FullName
	// unserved are perdure services that are in the set and not in names.
	unserved map[protoreflect.FullName]bool
}

// serve leaves only the named services.
func (v *version) serve(names []string) {
	v.unserved = map[protoreflect.FullName]bool{}
	v.names = slices.DeleteFunc(v.names, func(name protoreflect.FullName) bool {
		if slices.Contains(names, string(name)) {
			return false
		}
		v.unserved[name] = true
		delete(v.services, name)
		return true
	})
}

func read(side string, encoded []byte) (*version, error) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(encoded, set); err != nil {
		return nil, fmt.Errorf("%s: not an encoded FileDescriptorSet: %w; make one with: buf build -o schema.binpb", side, err)
	}
	if len(set.GetFile()) == 0 {
		return nil, fmt.Errorf("%s: the FileDescriptorSet has no files; make one with: buf build -o schema.binpb", side)
	}
	return readSet(side, set)
}

func readSet(side string, set *descriptorpb.FileDescriptorSet) (*version, error) {
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("%s: the FileDescriptorSet does not hold together: %w; with protoc, add --include_imports", side, err)
	}
	v := &version{files: files, services: map[protoreflect.FullName]*schema.Service{}}
	var problems schema.Problems
	for _, file := range set.File {
		desc, err := files.FindFileByPath(file.GetName())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side, err)
		}
		services, found := schema.Read(desc)
		problems = append(problems, found...)
		for _, service := range services {
			v.services[service.Desc.FullName()] = service
			v.names = append(v.names, service.Desc.FullName())
		}
	}
	if len(problems) > 0 {
		problems.Sort()
		return nil, fmt.Errorf("%s: %w", side, problems)
	}
	slices.Sort(v.names)
	return v, nil
}

type comparison struct {
	after   *version
	changes []Change
}

// report is affect for what concerns all that is kept of a service.
func (c *comparison) report(severity Severity, service protoreflect.FullName, desc protoreflect.Descriptor, within []int32, format string, args ...any) {
	c.affect(severity, Affected{Service: service}, desc, within, format, args...)
}

func (c *comparison) affect(severity Severity, affected Affected, desc protoreflect.Descriptor, within []int32, format string, args ...any) {
	problem := schema.Problemf(desc, within, format, args...)
	// Several rpcs may have the same request message, and so the same change in it.
	for i := range c.changes {
		if known := &c.changes[i]; known.Severity == severity && known.Problem == problem {
			if !slices.Contains(known.Affected, affected) {
				known.Affected = append(known.Affected, affected)
			}
			return
		}
	}
	c.changes = append(c.changes, Change{severity, problem, []Affected{affected}})
}
