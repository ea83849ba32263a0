package vet

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

// stepFunctions are functions of actor that are recorded in the journal.
var stepFunctions = map[string]bool{
	"Run": true, "RunAsync": true, "Do": true, "Sleep": true, "After": true, "Select": true, "All": true, "Race": true,
	"NewAwakeable": true, "Invoke": true, "InvokeAsync": true, "InvokeSend": true,
}

// refusedInTransactions are those that a TRANSACTION refuses when they are called, with the same
// advice.
var refusedInTransactions = map[string]bool{"Run": true, "RunAsync": true, "Do": true, "Sleep": true, "After": true, "NewAwakeable": true}

func (r *reader) readModeStep(f *types.Func, call *ast.CallExpr) {
	if r.at.mode != modeTransaction || f.Pkg() == nil || f.Pkg().Path() != actorPath {
		return
	}
	if f.Signature().Recv() == nil && refusedInTransactions[f.Name()] {
		r.report(ruleMode, call.Pos(), "actor.%s in a TRANSACTION handler is refused when it runs: a transaction has no steps that wait or act outside; give the rpc (perdure.v1.method).mode = DURABLE, or do it in a DURABLE handler that calls this one", f.Name())
	}
}

// readCallee applies the rules about a function of another package.
func (r *reader) readCallee(f *types.Func, pos token.Pos) {
	if f.Pkg() == nil {
		return
	}
	path, name := f.Pkg().Path(), f.Name()
	receiver := receiverName(f)
	durable := r.at.mode == modeDurable
	switch {
	case durable && path == "time" && receiver == "" && clocks[name] != "":
		r.report(ruleClock, pos, "time.%s in a DURABLE handler: a replay reads another time; use %s", name, clocks[name])
	case durable && receiver == "" && random(path, name):
		r.report(ruleRandom, pos, "%s.%s in a DURABLE handler: a replay draws something else; use %s", f.Pkg().Name(), name, randomAdvice(path))
	case goroutines[path+"."+receiver] && name == "Go":
		r.report(ruleGoroutine, pos, "%s.Go starts a goroutine in a %s handler: %s", receiver, r.at.mode, goroutineAdvice(r.at.mode))
	case outside(f, path, receiver, name):
		r.report(ruleIO, pos, "%s in a %s handler: %s", readable(f, receiver), r.at.mode, map[mode]string{
			modeDurable:     "each replay does it again; do it inside actor.Run",
			modeTransaction: "nothing takes it back if the transaction does not commit, and a try may be repeated; do it in a DURABLE handler inside actor.Run, and call this one from there",
		}[r.at.mode])
	}
}

// clocks are functions of package time that depend on when they are called, and what to use
// instead.
var clocks = map[string]string{
	"Now": "ctx.Now()", "Since": "ctx.Now().Sub(t)", "Until": "t.Sub(ctx.Now())",
	"Sleep": "actor.Sleep", "After": "actor.After", "Tick": "actor.Sleep in a loop", "NewTimer": "actor.After", "NewTicker": "actor.Sleep in a loop", "AfterFunc": "a send with actor.Delay",
}

// random: the function draws from a source that a replay does not have. Generators that the caller
// seeds are its own business.
func random(path, name string) bool {
	switch path {
	case "math/rand", "math/rand/v2":
		return !strings.HasPrefix(name, "New")
	case "crypto/rand":
		return true
	case "github.com/google/uuid":
		switch name {
		case "New", "NewString", "NewRandom", "NewUUID", "NewV6", "NewV7":
			return true
		}
	case "github.com/gofrs/uuid", "github.com/gofrs/uuid/v5":
		switch name {
		case "NewV1", "NewV4", "NewV6", "NewV7":
			return true
		}
	case "github.com/rs/xid", "github.com/oklog/ulid", "github.com/oklog/ulid/v2", "github.com/segmentio/ksuid":
		return name == "New" || name == "Make" || name == "NewRandom"
	}
	return false
}

func randomAdvice(path string) string {
	if strings.Contains(path, "rand") {
		return "ctx.Rand()"
	}
	return "ctx.UUID()"
}

// goroutines are types whose Go method starts one.
var goroutines = map[string]bool{"sync.WaitGroup": true, "golang.org/x/sync/errgroup.Group": true}

// outsideFunctions touch the world outside the process, as path.Name or path.Type.Name; a name
// that ends in * is a prefix.
var outsideFunctions = map[string][]string{
	"net":       {"Dial*", "Listen*", "Lookup*", "Dialer.Dial*", "Resolver.Lookup*", "ListenConfig.Listen*"},
	"net/http":  {"Get", "Post", "PostForm", "Head", "ListenAndServe*", "Client.*", "Transport.RoundTrip", "RoundTripper.RoundTrip"},
	"net/smtp":  {"SendMail", "Dial", "Client.*"},
	"net/rpc":   {"Dial*", "Client.Call", "Client.Go"},
	"os":        {"Create*", "Open*", "ReadFile", "WriteFile", "Remove*", "Rename", "Mkdir*", "ReadDir", "Truncate", "Link", "Symlink", "Chmod", "Chown", "StartProcess", "File.Read*", "File.Write*", "File.Sync", "File.Truncate"},
	"os/exec":   {"Cmd.Run", "Cmd.Start", "Cmd.Output", "Cmd.CombinedOutput"},
	"io/ioutil": {"ReadFile", "WriteFile", "ReadDir", "Temp*"},
	"database/sql": {
		"DB.Exec*", "DB.Query*", "DB.Ping*", "DB.Begin*", "DB.Prepare*", "DB.Conn", "Tx.Exec*", "Tx.Query*", "Tx.Commit", "Tx.Prepare*",
		"Conn.Exec*", "Conn.Query*", "Conn.Ping*", "Conn.Begin*", "Conn.Prepare*", "Stmt.Exec*", "Stmt.Query*",
	},
	"google.golang.org/grpc": {"ClientConn.Invoke", "ClientConn.NewStream", "ClientConnInterface.Invoke", "ClientConnInterface.NewStream"},
}

// outsideModules are clients of servers: whatever takes a context there talks to one.
var outsideModules = []string{
	"github.com/jackc/pgx", "github.com/redis/go-redis", "github.com/aws/aws-sdk-go-v2/service", "cloud.google.com/go",
	"go.mongodb.org/mongo-driver", "github.com/segmentio/kafka-go", "github.com/twmb/franz-go", "github.com/nats-io/nats.go",
	"github.com/minio/minio-go", "github.com/elastic/go-elasticsearch", "go.etcd.io/etcd/client",
}

// outside: the function does something outside the process.
func outside(f *types.Func, path, receiver, name string) bool {
	full := name
	if receiver != "" {
		full = receiver + "." + name
	}
	for _, pattern := range outsideFunctions[path] {
		if prefix, ok := strings.CutSuffix(pattern, "*"); full == pattern || ok && strings.HasPrefix(full, prefix) {
			return full != "Client.CloseIdleConnections"
		}
	}
	parameters := f.Signature().Params()
	if parameters.Len() == 0 {
		return false
	}
	// The methods of generated gRPC clients end in options of calls.
	if last := parameters.At(parameters.Len() - 1).Type(); f.Signature().Variadic() {
		if slice, ok := last.(*types.Slice); ok && named(slice.Elem(), "google.golang.org/grpc", "CallOption") {
			return true
		}
	}
	if receiver == "" || !named(parameters.At(0).Type(), "context", "Context") {
		return false
	}
	for _, module := range outsideModules {
		if path == module || strings.HasPrefix(path, module+"/") {
			return true
		}
	}
	return false
}

// receiverName is the name of the type that a method belongs to, "" for a function.
func receiverName(f *types.Func) string {
	if f.Signature().Recv() == nil {
		return ""
	}
	if t := receiverType(f); t != nil {
		return t.Name()
	}
	return "?"
}

// receiverType is the type that a method belongs to, nil for a function.
func receiverType(f *types.Func) *types.TypeName {
	receiver := f.Signature().Recv()
	if receiver == nil {
		return nil
	}
	t := types.Unalias(receiver.Type())
	if pointer, ok := t.(*types.Pointer); ok {
		t = types.Unalias(pointer.Elem())
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj()
	}
	return nil
}

func readable(f *types.Func, receiver string) string {
	if receiver == "" {
		return f.Pkg().Name() + "." + f.Name()
	}
	return f.Pkg().Name() + "." + receiver + "." + f.Name()
}

// named: t is the type path.name, perhaps with arguments, perhaps behind a pointer.
func named(t types.Type, path, name string) bool {
	if t == nil {
		return false
	}
	t = types.Unalias(t)
	if pointer, ok := t.(*types.Pointer); ok {
		t = types.Unalias(pointer.Elem())
	}
	n, ok := t.(*types.Named)
	return ok && n.Obj().Name() == name && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == path
}

// rootOf is the variable that an expression such as a.b[c].d begins with.
func (r *reader) rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := ast.Unparen(e).(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			if name, ok := x.X.(*ast.Ident); ok {
				if _, isPackage := r.pass.TypesInfo.Uses[name].(*types.PkgName); isPackage {
					return x.Sel
				}
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}
