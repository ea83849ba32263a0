package actortest_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// hourly registers services whose Deposit is declared to run every hour.
type hourly struct {
	actor.Registrar
	t *testing.T
}

func (h hourly) RegisterService(desc *actor.ServiceDesc, handler any) {
	file := protodesc.ToFileDescriptorProto(desc.File)
	for _, service := range file.Service {
		for _, method := range service.Method {
			if method.GetName() != "Deposit" {
				continue
			}
			method.Options = withOptions(method.Options)
			proto.SetExtension(method.Options, perdurev1.E_Method, &perdurev1.MethodOptions{Schedules: []*perdurev1.DeclaredSchedule{
				{Name: "interest", Every: durationpb.New(time.Hour), Key: "a", Request: `{"amount": "1"}`},
			}})
		}
	}
	made, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		h.t.Fatal(err)
	}
	changed := *desc
	changed.Methods = nil
	for _, method := range desc.Methods {
		m := *method
		m.Schema = func() protoreflect.MethodDescriptor {
			return made.Services().ByName(protoreflect.FullName(desc.Name).Name()).Methods().ByName(protoreflect.Name(method.Name))
		}
		changed.Methods = append(changed.Methods, &m)
	}
	h.Registrar.RegisterService(&changed, handler)
}

func withOptions(options *descriptorpb.MethodOptions) *descriptorpb.MethodOptions {
	if options == nil {
		return &descriptorpb.MethodOptions{}
	}
	return options
}

// TestDeclaredSchedules fire, also in a node whose every move a test decides.
func TestDeclaredSchedules(t *testing.T) {
	scenario := func(t *testing.T, node *actortest.Node) {
		bank.RegisterAccountHandler(hourly{node, t}, accounts{})
		c := node.Client()
		time.Sleep(5*time.Hour + 30*time.Minute)
		got, err := bank.Account(c, "a").Balance(t.Context(), &bankv1.BalanceRequest{})
		if err != nil || got.Balance != 5 {
			t.Errorf("balance after five hours: %v, %v; want 5", got, err)
		}
	}
	actortest.Run(t, scenario)
	actortest.Seeds(t, 20, scenario)
}
