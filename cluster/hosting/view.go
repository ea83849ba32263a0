package hosting

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
)

// build is what a node hosts.
type build struct {
	deployment string
	names      []string // of services, sorted
	// handlers by service; nil for a service that has no descriptor, any of whose handlers it may have.
	handlers map[string]map[string]bool
	// descs are the descriptions of other nodes' services, made of their descriptors.
	descs map[string]*actor.ServiceDesc
}

// hosts reports whether the build has a service, and whether it has the handler.
func (b *build) hosts(target invocation.Target) (service, handler bool) {
	if b == nil {
		return false, false
	}
	handlers, service := b.handlers[target.Service]
	return service, service && (handlers == nil || handlers[target.Handler])
}

func ownBuild(deployment string, services []*actor.ServiceDesc) *build {
	b := &build{deployment: deployment, handlers: map[string]map[string]bool{}, descs: map[string]*actor.ServiceDesc{}}
	for _, desc := range services {
		b.add(desc)
	}
	b.names = slices.Sorted(maps.Keys(b.handlers))
	return b
}

func (b *build) add(desc *actor.ServiceDesc) {
	b.descs[desc.Name], b.handlers[desc.Name] = desc, map[string]bool{}
	for _, method := range desc.Methods {
		b.handlers[desc.Name][method.Name] = true
	}
}

// host is another live node.
type host struct {
	node       uint64
	leaving    bool
	deployment string
	sum        sum
	build      *build
}

// view is what is known at one time. Nobody changes it.
type view struct {
	own       *build
	others    []host
	elsewhere []*actor.ServiceDesc
	// deployments of services that only others host.
	deployments map[string]string
}

// newView adds to known what others describe.
func newView(own *build, others []host, known map[string]*actor.ServiceDesc) *view {
	v := &view{own: own, others: others, deployments: map[string]string{}}
	// Of several descriptions of a service, every node takes the one that most nodes have.
	count := map[sum]int{}
	for _, h := range others {
		count[h.sum]++
	}
	ranked := slices.Clone(others)
	slices.SortFunc(ranked, func(a, b host) int {
		return cmp.Or(cmp.Compare(count[b.sum], count[a.sum]), a.sum.compare(b.sum))
	})
	described := map[string]bool{}
	for _, h := range ranked {
		for name := range h.build.handlers {
			if own != nil && own.handlers[name] != nil {
				continue
			}
			if v.deployments[name] == "" {
				v.deployments[name] = h.deployment
			}
			if desc := h.build.descs[name]; desc != nil && !described[name] {
				described[name], known[name] = true, desc
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if own == nil || own.descs[name] == nil {
			v.elsewhere = append(v.elsewhere, known[name])
		}
	}
	return v
}

func (v *view) here(target invocation.Target) bool {
	service, handler := v.own.hosts(target)
	if handler || !service {
		return handler
	}
	return !slices.ContainsFunc(v.others, func(h host) bool {
		_, has := h.build.hosts(target)
		return has
	})
}

// hosts begins anywhere among nodes that are as good as each other, so that they share the work.
func (v *view) hosts(target invocation.Target, deployment string) []uint64 {
	type ranked struct {
		node uint64
		rank int
	}
	var found []ranked
	for _, h := range v.others {
		service, handler := h.build.hosts(target)
		if !service {
			continue
		}
		rank := 0
		if !handler { // it says better than nobody what is wrong
			rank += 4
		}
		if h.leaving {
			rank += 2
		}
		if deployment != "" && h.deployment != deployment {
			rank++
		}
		found = append(found, ranked{h.node, rank})
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	slices.SortStableFunc(found, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	nodes := make([]uint64, len(found))
	for i, f := range found {
		nodes[i] = f.node
	}
	return nodes
}

// exactly begins anywhere, as hosts does. A node that is about to stop is left out: what it is given now
// would have to move on in a moment.
func (v *view) exactly(target invocation.Target, deployment string) []uint64 {
	var nodes []uint64
	for _, h := range v.others {
		if _, handler := h.build.hosts(target); handler && h.deployment == deployment && !h.leaving {
			nodes = append(nodes, h.node)
		}
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func (v *view) runs(deployment string) bool {
	return v.own != nil && v.own.deployment == deployment || slices.ContainsFunc(v.others, func(h host) bool {
		return h.deployment == deployment && !h.leaving
	})
}

func (v *view) deployment(service string) string {
	if v.own != nil && v.own.handlers[service] != nil {
		return v.own.deployment
	}
	return v.deployments[service]
}
