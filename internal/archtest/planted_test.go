package archtest

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// These tests give the checks something wrong each and want it found: a check that finds
// nothing in a sound tree may be one that finds nothing at all.

func TestPlantedImportsAreFound(t *testing.T) {
	tests := []struct {
		rule  string
		chain string
		graph graph
	}{
		{"handlers compile no database", "actor → internal/invocation → storage", graph{
			"actor":               {path: "actor", imports: []string{"internal/invocation"}, deps: []string{"internal/invocation", "storage"}},
			"internal/invocation": {path: "internal/invocation", imports: []string{"storage"}, deps: []string{"storage"}},
			"storage":             {path: "storage"},
		}},
		{"handlers compile no database", "actor → connectrpc.com/connect/v2", graph{
			"actor": {path: "actor", imports: []string{"connectrpc.com/connect/v2"}},
		}},
		{"pure packages have no clock, lock, disk or chance", "internal/engine → math/rand/v2", graph{
			"internal/engine": {path: "internal/engine", imports: []string{"math/rand/v2"}},
		}},
		{"replicas apply bytes", "cluster/replica (tests) → internal/engine", graph{
			"cluster/replica": {path: "cluster/replica", testImports: []string{"internal/engine"}},
		}},
		{"one package knows Badger", "storage/memstore → github.com/dgraph-io/badger/v4", graph{
			"storage/memstore": {path: "storage/memstore", imports: []string{"github.com/dgraph-io/badger/v4"}},
		}},
		{"the storage seam stands alone", "storage → storage/memstore", graph{
			"storage": {path: "storage", imports: []string{"storage/memstore"}},
		}},
		{"the command line tool links no node", "cmd/perdure → … → go.etcd.io/raft/v3", graph{
			"cmd/perdure": {path: "cmd/perdure", imports: []string{"codegen"}, deps: []string{"codegen", "go.etcd.io/raft/v3"}},
			"codegen":     {path: "codegen", imports: []string{"example.com/x"}},
		}},
	}
	for _, test := range tests {
		found := violations(test.graph, rules)
		if !slices.ContainsFunc(found, func(violation string) bool {
			return strings.HasPrefix(violation, test.rule+"\n\t"+test.chain+"\n\tbecause ")
		}) {
			t.Errorf("%s: %s was not found; found %q", test.rule, test.chain, found)
		}
	}
}

func TestPlantedUpwardArrowIsFound(t *testing.T) {
	found := upward(graph{
		"internal/engine":    {path: "internal/engine", imports: []string{"internal/partition", "internal/table"}},
		"internal/partition": {path: "internal/partition", imports: []string{"internal/engine"}},
		"internal/table":     {path: "internal/table"},
		"internal/new":       {path: "internal/new"},
	})
	if len(found) != 2 || !strings.Contains(found[0], "internal/engine (layer 5") || !strings.Contains(found[1], "internal/new is in no layer") {
		t.Errorf("got %q", found)
	}
}

const plantedSource = `package planted

const (
	A Code = iota + 1
	B
	hidden
)

// Config is documented and so is Timeout, and its first field is not.
type Config[K comparable, V any] struct {
	Address string
	Timeout int
	// Limit is documented.
	Limit, limit int
	*Embedded
}

type Sealed interface {
	// Do is documented.
	Do(name string,
		n int) error
	sealed()
}

type lower struct{}

func (lower) Exported() {}

// Get is documented.
func (c *Config[K, V]) Get(key K) (value V, ok bool) { return }

func Free[T any](fn func(T) error, more ...T) {}
`

func planted(t *testing.T) goFile {
	t.Helper()
	positions := token.NewFileSet()
	syntax, err := parser.ParseFile(positions, "planted.go", plantedSource, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return goFile{name: "planted.go", syntax: syntax, positions: positions}
}

func TestPlantedAPIIsListed(t *testing.T) {
	got := fileAPI(planted(t))
	slices.Sort(got)
	want := []string{
		"const A Code = iota + 1",
		"const B Code",
		"func Free[T any](fn func(T) error, more ...T)",
		"method (*Config[K, V]) Get(key K) (value V, ok bool)",
		"type Config, Address string",
		"type Config, Limit int",
		"type Config, Timeout int",
		"type Config, embedded *Embedded",
		"type Config[K comparable, V any] struct",
		"type Sealed interface, sealed",
		"type Sealed, Do(name string, n int) error",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPlantedMissingCommentsAreFound(t *testing.T) {
	for _, test := range []struct {
		fields bool
		want   []string
	}{
		{true, []string{"A", "B", "Config.Address", "Sealed", "Free"}},
		{false, []string{"A", "B", "Sealed", "Free"}},
	} {
		var got []string
		for _, missing := range undocumented(planted(t), test.fields) {
			_, name, _ := strings.Cut(missing, ": ")
			got = append(got, name)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("fields = %v: got %q, want %q", test.fields, got, test.want)
		}
	}
}

func TestPlantedMachineTracesAreFound(t *testing.T) {
	tests := []struct {
		line string
		want bool
	}{
		{"see /" + "root/go/pkg/mod", true},
		{"cd /" + "work/checkout && make", true},
		{"`/home/ann/perdure`", true},
		{"\"/Users/ann/perdure\"", true},
		{"/tmp/" + "bash_jobs.0/7", true},
		{"registry=http://mirror.build.internal:8080/npm", true},
		{"http://10.1.2.3:4873/tarball", true},
		{"https://ann:secret@example.com/repository", true},
		{"go run ./examples/bank --data /tmp/bank", false},
		{"framework/ and network/ and $HOME/work/perdure", false},
		{"http://127.0.0.1:7233", false},
		{"${root}/work/data", false},
		{"https://buf.build/perdure/perdure", false},
		{"import \"github.com/perdure/perdure/internal/engine\"", false},
	}
	for _, test := range tests {
		if found := machineTraces("file", []byte(test.line)); (len(found) > 0) != test.want {
			t.Errorf("%q: found %q, want found = %v", test.line, found, test.want)
		}
	}
}

func TestDifference(t *testing.T) {
	if got, want := difference("a\nb\nb\n", "a\nb\nc\n"), "- b\n+ c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := difference("a\nb\n", "b\na\n"); !strings.Contains(got, "order") {
		t.Errorf("got %q", got)
	}
}
