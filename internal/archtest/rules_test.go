package archtest

// Import paths of other modules that rules speak of; packages below them are meant too.
const (
	badger        = "github.com/dgraph-io/badger"
	ristretto     = "github.com/dgraph-io/ristretto"
	raft          = "go.etcd.io/raft"
	memberlist    = "github.com/hashicorp/memberlist"
	connect       = "connectrpc.com"
	grpc          = "google.golang.org/grpc"
	protovalidate = "buf.build/go/protovalidate"
	cel           = "cel.dev"
	otelSDK       = "go.opentelemetry.io/otel/sdk"
	otelExporters = "go.opentelemetry.io/otel/exporters"
	prometheus    = "github.com/prometheus"
	cobra         = "github.com/spf13/cobra"
	cron          = "github.com/netresearch/go-cron"
)

// rule says what packages must not import. Patterns are paths with all that is below them;
// "=x" is x without what is below.
type rule struct {
	name string
	// packages the rule is for; empty: all.
	packages []string
	// except are the packages it is not for.
	except []string
	// never is what they must not import.
	never []string
	// butFor are parts of never they may import.
	butFor []string
	// reach makes the rule hold for all that ends up in a binary with the package, and not for
	// its own imports alone.
	reach bool
	// tests makes it hold for the package's tests too.
	tests bool
	// why is printed with each violation.
	why string
}

// The pure packages: what they compute depends on their arguments alone.
var pure = []string{"internal/engine", "internal/draft", "internal/inbox", "internal/table", "internal/invocation", "internal/stress", "internal/journal", "internal/journal/pages", "internal/journal/renew", "internal/journal/tries", "internal/transaction", "internal/limit", "internal/retry", "internal/schedule", "cluster/placement"}

var rules = []rule{
	{
		name:     "handlers compile no database",
		packages: []string{"actor"},
		except:   []string{"actor/actortest"},
		never: []string{"internal", "storage", "cluster", badger, ristretto, raft, memberlist, connect, grpc, protovalidate, cel,
			otelSDK, otelExporters, prometheus, "net/http"},
		butFor: []string{"internal/invocation"},
		reach:  true,
		why:    "whoever writes handlers or calls objects imports actor: it must not bring a database, a consensus library or a server into their build, nor their versions into their go.mod's choices",
	},
	{
		name:     "pure packages have no clock, lock, disk or chance",
		packages: pure,
		never: []string{"time", "net", "os", "io/fs", "sync", "math/rand", "crypto/rand", "syscall", "golang.org/x/sys", "context", "log", "runtime",
			"github.com/google/uuid", "actor"},
		why: "the engine and what it is made of are a function of (view, event, now): that is what lets scripts, random programs and the simulator test them, and two runs of a seed agree. Time, ids and chance come in with the event",
	},
	{
		name:     "pure packages import pure packages",
		packages: pure,
		never:    []string{"actor", "bench", "cluster", "cmd", "codegen", "examples", "internal", "proto", "storage"},
		butFor:   append([]string{"internal/record"}, pure...),
		why:      "a package is only as pure as what it imports from this module; the record messages are data",
	},
	{
		name:     "replicas apply bytes",
		packages: []string{"cluster/replica"},
		never:    []string{"actor", "internal"},
		reach:    true,
		tests:    true,
		why:      "followers never run engine code: two versions of the engine then never have to compute the same thing, and a record that crashes the engine crashes one evaluation instead of every replica",
	},
	{
		name:   "one package knows Badger",
		except: []string{"storage/badgerstore"},
		never:  []string{badger, ristretto},
		tests:  true,
		why:    "Badger's traps (damage that opens silently, SIGBUS on a full disk, commits of unknown outcome) are guarded in storage/badgerstore; everything else uses the seam storage.Store, so that it also runs on the in-memory twin",
	},
	{
		name:   "one package knows raft",
		except: []string{"cluster/replica"},
		never:  []string{raft},
		tests:  true,
		why:    "terms, indexes and raft messages end at cluster/replica, which turns them into epochs and bytes; a second user would make a second idea of who leads",
	},
	{
		name:   "one package knows memberlist",
		except: []string{"cluster/membership"},
		never:  []string{memberlist},
		tests:  true,
		why:    "gossip informs and never decides: behind one adapter nobody can take it for the truth",
	},
	{
		name:   "one package knows cron",
		except: []string{"internal/calendar"},
		never:  []string{cron},
		tests:  true,
		why:    "its parser is used and nothing else: when a schedule is due is ours to define, around changes of the clock too, and kept schedules must not change with a version of the library",
	},
	{
		name:   "connect stays at the edge",
		except: []string{"internal/ingress", "internal/admin", "cluster/transport"},
		never:  []string{connect},
		why:    "errors get their wire codes in one place. Above the edge a failure is an actor.Error or a Go error, and handlers, partitions and the engine would work over another protocol unchanged",
	},
	{
		name:   "validation happens at the edge",
		except: []string{"internal/ingress", "examples"},
		never:  []string{protovalidate, cel},
		why:    "requests are validated before an invocation exists; protovalidate compiles CEL, which is slow to start and big, so a program takes it only if its messages have rules (cluster.WithValidator)",
	},
	{
		name:   "exporters are set up in one place",
		except: []string{"internal/telemetry"},
		never:  []string{otelSDK, otelExporters, prometheus},
		why:    "packages record through internal/telemetry, whose nil values do nothing: that is how telemetry that is off costs nothing",
	},
	{
		name:   "the command line is parsed in cmd",
		except: []string{"cmd/perdure"},
		never:  []string{cobra},
		why:    "programs that embed a node have flags of their own",
	},
	{
		name:     "the command line tool links no node",
		packages: []string{"cmd/perdure"},
		never:    []string{"actor", "cluster", "storage", "internal", badger, ristretto, raft, memberlist},
		butFor:   []string{"internal/calendar"}, // which checks what a .proto declares
		reach:    true,
		why:      "it talks to nodes of any build through the public admin service, and starts fast; a shortcut past that service would work only on its own machine and version",
	},
	{
		name:     "the generator is a function of descriptors",
		packages: []string{"codegen", "cmd/protoc-gen-go-perdure"},
		except:   []string{"codegen/internal"},
		never:    []string{"actor", "cluster", "storage", "internal", badger, ristretto, raft, memberlist, connect, "net/http", "os/exec"},
		butFor:   []string{"internal/calendar"},
		reach:    true,
		why:      "a plugin is built by everybody who generates: it knows the options' Go and protobuf, and which cron expressions there are, not the runtime that runs what it writes",
	},
	{
		name:     "generated code uses the public API",
		packages: []string{"examples/counter/gen", "examples/bank/gen", "examples/orders/gen", "bench/gen", "codegen/internal/golden"},
		never:    []string{"internal", "cluster", "storage", "codegen"},
		butFor:   []string{"codegen/internal/golden"},
		why:      "it compiles in modules other than this one, with nothing but actor and protobuf",
	},
	{
		name:     "examples use the public API",
		packages: []string{"examples"},
		never:    []string{"internal", "cluster/replica", "storage", "codegen"},
		why:      "an example a user cannot copy into a module of their own shows nothing",
	},
	{
		name:     "partitions run handlers of any kind",
		packages: []string{"internal/partition", "internal/invoker", "internal/routing"},
		except:   []string{"internal/invoker/inprocess"},
		never:    []string{"actor", "internal/invoker/inprocess"},
		reach:    true,
		why:      "the in-process invoker is one implementation of invoker.Invoker; handlers outside the process come through the same door, so nothing above it may assume Go",
	},
	{
		name:     "the storage seam stands alone",
		packages: []string{"=storage", "storage/vfs"},
		never:    []string{"actor", "cluster", "internal", "proto", "storage"},
		butFor:   []string{"storage/vfs"},
		why:      "a backend implements it without knowing what is kept in it",
	},
	{
		name:   "tests' code stays in tests",
		except: []string{"storage/storagetest", "cluster/transport/transporttest", "internal/routing/routingtest", "internal/certificate/certificatetest", "codegen/internal/descriptortest", "actor/actortest", "internal/sim", "internal/chaos", "internal/history"},
		never:  []string{"testing", "pgregory.net/rapid", "github.com/anishathalye/porcupine", "go.uber.org/goleak", "storage/storagetest", "cluster/transport/transporttest", "internal/routing/routingtest", "internal/certificate/certificatetest", "codegen/internal/descriptortest", "internal/sim", "internal/chaos", "internal/history"},
		reach:  true,
		why:    "a program of users must not carry the testing package and its flags; what tests share lives in packages named …test, imported by _test.go files",
	},
}

// layer is one storey: its packages may import those of lower storeys and, inside one entry,
// each other. An entry is a folder with all that is below it, unless a longer entry matches.
type layer struct {
	name    string
	entries []string
}

// layers, lowest first.
var layers = []layer{
	{"vocabulary", []string{"internal/invocation", "internal/record", "internal/transport", "internal/membership", "internal/balance", "internal/calendar", "internal/stress", "proto", "storage/vfs", "cluster/placement"}},
	{"seams and pure parts", []string{"actor", "storage", "internal/draft", "internal/retry", "internal/journal", "internal/table", "internal/header", "internal/routing", "internal/telemetry", "internal/invoker", "internal/history", "internal/vet", "internal/timetable", "codegen/schema"}},
	{"pure machines", []string{"internal/journal/pages", "internal/journal/renew", "internal/journal/tries", "internal/inbox", "internal/transaction", "internal/schedule", "internal/limit", "internal/flow", "storage/badgerstore", "storage/memstore", "storage/nodelog", "storage/storagetest", "internal/certificate", "internal/routing/routingtest", "codegen"}},
	{"generated code", []string{"examples/counter/gen", "examples/bank/gen", "examples/orders/gen", "bench/gen"}},
	{"deciding", []string{"internal/engine", "internal/deployment"}},
	{"doing", []string{"cluster/replica", "cluster/membership", "cluster/hosting", "cluster/transport", "internal/invoker/inprocess", "internal/invoker/gate", "internal/invoker/remote", "internal/ingress", "internal/admin", "internal/webui"}},
	{"owning", []string{"internal/partition"}},
	{"reaching", []string{"internal/peer"}},
	{"composing", []string{"cluster"}},
	{"many nodes", []string{"actor/actortest", "internal/sim"}},
	{"programs", []string{"cmd", "examples", "bench", "internal/archtest", "internal/chaos"}},
}

// storey finds the layer and the entry of a package by the longest entry that matches; -1 if
// none does.
func storey(path string) (number int, entry string) {
	number = -1
	for i, l := range layers {
		for _, candidate := range l.entries {
			if under(path, []string{candidate}) && len(candidate) > len(entry) {
				number, entry = i, candidate
			}
		}
	}
	return number, entry
}
