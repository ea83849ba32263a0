package codegen_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/perdure/perdure/actor"
	objectsv1 "github.com/perdure/perdure/codegen/internal/golden/objects/v1"
	"github.com/perdure/perdure/codegen/internal/golden/objects/v1/objectsv1perdure"
	samepackagev1 "github.com/perdure/perdure/codegen/internal/golden/samepackage/v1"
	servicesv1 "github.com/perdure/perdure/codegen/internal/golden/services/v1"
	"github.com/perdure/perdure/codegen/internal/golden/services/v1/servicesv1perdure"
	sharedv1 "github.com/perdure/perdure/codegen/internal/golden/shared/v1"
	workflowv1 "github.com/perdure/perdure/codegen/internal/golden/workflow/v1"
	"github.com/perdure/perdure/codegen/internal/golden/workflow/v1/workflowv1perdure"
)

type sensors struct {
	objectsv1perdure.UnimplementedSensorHandler
}

func (sensors) Record(ctx objectsv1perdure.SensorTxContext, req *objectsv1.RecordRequest) (*objectsv1.RecordResponse, error) {
	if req.SensorId != ctx.Key() {
		return nil, actor.Errorf(actor.Internal, "key %d, request for %d", ctx.Key(), req.SensorId)
	}
	ctx.State().Update(func(s *sharedv1.Reading_History) { s.Celsius = append(s.Celsius, req.Celsius) })
	ctx.Alarms().Put("last", &objectsv1.Alarm{Text: "hot"})
	ctx.DailyMeans().Put("monday", &objectsv1.Alarm_Limits{High: req.Celsius})
	return &objectsv1.RecordResponse{Count: int32(len(ctx.State().Get().Celsius))}, nil
}

func (sensors) Latest(ctx objectsv1perdure.SensorReadContext, _ *objectsv1.LatestRequest) (*objectsv1.LatestResponse, error) {
	alarm, ok := ctx.Alarms().Get("last")
	if !ok || alarm.Text != "hot" || ctx.DailyMeans().Len() != 1 {
		return nil, actor.Errorf(actor.NotFound, "the tables lack what Record put there")
	}
	history := ctx.State().Get().Celsius
	return &objectsv1.LatestResponse{Celsius: history[len(history)-1]}, nil
}

func TestGeneratedObject(t *testing.T) {
	node := newFakeNode()
	objectsv1perdure.RegisterSensorHandler(node, sensors{})
	client := actor.NewClient(node)
	sensor := objectsv1perdure.Sensor(client, -7)

	for want := range int32(2) {
		res, err := sensor.Record(t.Context(), &objectsv1.RecordRequest{Celsius: 20 + float64(want), Idempotency: string(rune('a' + want))})
		if err != nil {
			t.Fatal(err)
		}
		if res.Count != want+1 {
			t.Errorf("Record returned count %d, want %d", res.Count, want+1)
		}
	}
	if call := node.calls[1]; call.Key != "-7" || call.IdempotencyKey != "b" || call.Method.Name != "Record" {
		t.Errorf("the call went out as %+v", call)
	}
	latest, err := sensor.LatestAsync(t.Context(), nil).Await(t.Context())
	if err != nil || latest.Celsius != 21 {
		t.Errorf("Latest returned %v, %v", latest, err)
	}
	invocation, err := sensor.RecordSend(t.Context(), &objectsv1.RecordRequest{}, actor.Delay(time.Minute))
	if err != nil || invocation.ID() != "inv_Record_-7" {
		t.Errorf("RecordSend returned %v, %v", invocation, err)
	}
	if call := node.calls[len(node.calls)-1]; call.Delay != time.Minute {
		t.Errorf("the send went out as %+v", call)
	}
	if _, err := sensor.Calibrate(t.Context(), nil); actor.CodeOf(err) != actor.Unimplemented {
		t.Errorf("Calibrate, which is not implemented, returned %v", err)
	}
}

type trips struct{}

func (trips) Travel(ctx workflowv1perdure.TripRunContext, req *workflowv1.TravelRequest) (*workflowv1.TravelResponse, error) {
	ctx.State().Update(func(s *workflowv1.TripState) { s.SetPlace("road to " + req.GetDestination()) })
	driver, err := ctx.Driver().Await(ctx)
	if err != nil {
		return nil, err
	}
	delay, err := ctx.Delay().Receive(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := ctx.Arrive().Receive(ctx); err != nil {
		return nil, err
	}
	outcome := driver.GetName() + " drove " + ctx.Key()
	if delay.GetMinutes() == 5 {
		outcome += ", late"
	}
	return workflowv1.TravelResponse_builder{Outcome: &outcome}.Build(), nil
}

func (trips) AssignDriver(ctx workflowv1perdure.TripReadContext, req *workflowv1.AssignDriverRequest) (*workflowv1.AssignDriverResponse, error) {
	return nil, ctx.Driver().Resolve(ctx, workflowv1.Driver_builder{Name: proto.String(req.GetName())}.Build())
}

func (trips) Where(ctx workflowv1perdure.TripReadContext, _ *workflowv1.WhereRequest) (*workflowv1.WhereResponse, error) {
	if _, done, err := ctx.FinalPrice().Peek(ctx); done || err != nil {
		return nil, actor.Errorf(actor.Internal, "final_price is done, or %v", err)
	}
	return workflowv1.WhereResponse_builder{Place: proto.String(ctx.State().Get().GetPlace())}.Build(), nil
}

func TestGeneratedWorkflow(t *testing.T) {
	node := newFakeNode()
	workflowv1perdure.RegisterTripHandler(node, trips{})
	client := actor.NewClient(node)
	trip := workflowv1perdure.Trip(client, "t1")
	ctx := t.Context()

	if _, err := trip.AssignDriver(ctx, workflowv1.AssignDriverRequest_builder{Name: proto.String("ann")}.Build()); err != nil {
		t.Fatal(err)
	}
	if _, err := trip.Delay(ctx, workflowv1.DelayRequest_builder{Minutes: proto.Int32(5)}.Build()); err != nil {
		t.Fatal(err)
	}
	if _, err := trip.Arrive(ctx, nil); err != nil {
		t.Fatal(err)
	}
	res, err := trip.Travel(ctx, workflowv1.TravelRequest_builder{Destination: proto.String("rome")}.Build())
	if err != nil {
		t.Fatal(err)
	}
	if want := "ann drove t1, late"; res.GetOutcome() != want {
		t.Errorf("Travel returned %q, want %q", res.GetOutcome(), want)
	}
	again, err := trip.TravelAttach(ctx)
	if err != nil || again.GetOutcome() != res.GetOutcome() {
		t.Errorf("TravelAttach returned %v, %v", again, err)
	}
	where, err := trip.Where(ctx, nil)
	if err != nil || where.GetPlace() != "road to rome" {
		t.Errorf("Where returned %v, %v", where, err)
	}
	if _, err := workflowv1perdure.Nap(client, 18446744073709551615).NapAttach(ctx); actor.CodeOf(err) != actor.NotFound {
		t.Errorf("NapAttach of a run that never was returned %v", err)
	}
}

type mail struct {
	servicesv1perdure.UnimplementedMailHandler
}

func (mail) Flush(actor.Context, *emptypb.Empty) (*servicesv1.FlushResponse, error) {
	return &servicesv1.FlushResponse{Count: 3}, nil
}

type tags struct{}

func (tags) Set(ctx servicesv1perdure.TagTxContext, req *servicesv1.SetRequest) (*servicesv1.SetResponse, error) {
	if ctx.Key() != 4294967295 || req.GetTag() != ctx.Key() {
		return nil, actor.Errorf(actor.Internal, "key %d, request for %d", ctx.Key(), req.GetTag())
	}
	return nil, nil
}

type notes struct{}

func (notes) Write(ctx samepackagev1.NoteTxContext, req *samepackagev1.WriteRequest) (*samepackagev1.WriteResponse, error) {
	ctx.State().Set(&samepackagev1.NoteState{Text: req.Text})
	return nil, nil
}

func (notes) Read(ctx samepackagev1.NoteReadContext, _ *samepackagev1.ReadRequest) (*samepackagev1.ReadResponse, error) {
	return &samepackagev1.ReadResponse{Text: ctx.State().Get().Text}, nil
}

func TestGeneratedServices(t *testing.T) {
	node := newFakeNode()
	servicesv1perdure.RegisterMailHandler(node, mail{})
	servicesv1perdure.RegisterTagHandler(node, tags{})
	samepackagev1.RegisterNoteHandler(node, notes{})
	client := actor.NewClient(node)
	ctx := t.Context()

	flushed, err := servicesv1perdure.Mail(client).Flush(ctx, nil)
	if err != nil || flushed.Count != 3 {
		t.Errorf("Flush returned %v, %v", flushed, err)
	}
	_, err = servicesv1perdure.Mail(client).Deliver(ctx, &servicesv1.DeliverRequest{MessageId: "m1"})
	if actor.CodeOf(err) != actor.Unimplemented {
		t.Errorf("Deliver, which is not implemented, returned %v", err)
	}
	if call := node.calls[len(node.calls)-1]; call.Key != "" || call.IdempotencyKey != "m1" {
		t.Errorf("the call went out as %+v", call)
	}
	if _, err := servicesv1perdure.Tag(client, 4294967295).Set(ctx, nil); err != nil {
		t.Error(err)
	}
	if _, err := samepackagev1.Note(client, -1).Write(ctx, &samepackagev1.WriteRequest{Text: proto.String("x")}); err != nil {
		t.Fatal(err)
	}
	read, err := samepackagev1.Note(client, -1).Read(ctx, nil)
	if err != nil || read.GetText() != "x" {
		t.Errorf("Read returned %v, %v", read, err)
	}
}

// TestGeneratedDescriptions holds what the runtime is told against the schema itself.
func TestGeneratedDescriptions(t *testing.T) {
	node := newFakeNode()
	objectsv1perdure.RegisterSensorHandler(node, sensors{})
	objectsv1perdure.RegisterKeyOnlyHandler(node, objectsv1perdure.UnimplementedKeyOnlyHandler{})
	objectsv1perdure.RegisterCounterHandler(node, objectsv1perdure.UnimplementedCounterHandler{})
	workflowv1perdure.RegisterTripHandler(node, trips{})
	workflowv1perdure.RegisterNapHandler(node, workflowv1perdure.UnimplementedNapHandler{})
	servicesv1perdure.RegisterMailHandler(node, mail{})
	servicesv1perdure.RegisterTagHandler(node, tags{})
	samepackagev1.RegisterNoteHandler(node, notes{})
	if len(node.services) != 8 {
		t.Fatalf("%d services are registered, want 8", len(node.services))
	}
	for name, registered := range node.services {
		desc := registered.desc
		if desc.File == nil {
			t.Errorf("%s: File is nil", name)
			continue
		}
		service := desc.File.Services().ByName(protoreflect.FullName(name).Name())
		if service == nil || string(service.FullName()) != name {
			t.Errorf("%s: is not in %s", name, desc.File.Path())
			continue
		}
		if len(desc.Methods) != service.Methods().Len() {
			t.Errorf("%s: %d methods, want %d", name, len(desc.Methods), service.Methods().Len())
			continue
		}
		for i, method := range desc.Methods {
			schema := service.Methods().Get(i)
			if method.Schema() != schema || method.Name != string(schema.Name()) || method.Service != name || method.Kind != desc.Kind {
				t.Errorf("%s: method %d is %s/%s", name, i, method.Service, method.Name)
			}
			if got := method.NewRequest().ProtoReflect().Descriptor(); got != schema.Input() {
				t.Errorf("%s.%s: NewRequest makes a %s", name, method.Name, got.FullName())
			}
			if got := method.NewResponse().ProtoReflect().Descriptor(); got != schema.Output() {
				t.Errorf("%s.%s: NewResponse makes a %s", name, method.Name, got.FullName())
			}
			if (method.Handle == nil) != (method.Mode == actor.ModeSignal) {
				t.Errorf("%s.%s: Handle is set: %v, mode %s", name, method.Name, method.Handle != nil, method.Mode)
			}
		}
	}

	sensor := node.services[objectsv1perdure.SensorServiceName].desc
	if got := sensor.StateType().ProtoReflect().Descriptor().FullName(); got != "golden.shared.v1.Reading.History" {
		t.Errorf("the sensor's state is a %s", got)
	}
	want := actor.HandlerOptions{
		Retry: actor.RetryPolicy{
			InitialInterval: 50 * time.Millisecond, MaxInterval: time.Hour,
			Factor: 1.5, MaxAttempts: 1, PauseOnExhausted: true,
		},
		StepTimeout: 90 * time.Second, Timeout: time.Second + time.Microsecond, Retention: time.Second,
		Limits: []actor.Limit{
			{Name: "sky", By: actor.ByTenant, Rate: actor.Rate{Count: 100, Per: time.Minute, Burst: 5}, MaxQueue: 50},
			{Name: "benches", By: actor.ByLimitKey, Concurrency: 2, Rate: actor.Rate{Count: 1, Per: time.Second, Burst: 1}, MaxQueue: actor.NoQueue, UntilDone: true},
		},
		MaxInbox:          7,
		InactivityTimeout: 30 * time.Second, JournalRetention: 500 * time.Millisecond,
	}
	if got := sensor.Methods[2].Options; !reflect.DeepEqual(got, want) {
		t.Errorf("Calibrate has the options %+v, want %+v", got, want)
	}
	if got, want := sensor.Methods[3].Options, (actor.HandlerOptions{Timeout: 5 * time.Second}); !reflect.DeepEqual(got, want) {
		t.Errorf("Latest has the options %+v, want %+v", got, want)
	}
	// A TRANSACTION has those limits of the defaults that take no permit.
	if got := sensor.Methods[0].Options; len(got.Limits) != 1 || got.Limits[0].Name != "sky" || got.MaxInbox != 500 {
		t.Errorf("Record has the limits %+v and an inbox of %d", got.Limits, got.MaxInbox)
	}
	if got := sensor.Methods[0]; got.KeyField != 7 || got.IdempotencyField != 1 {
		t.Errorf("Record has key field %d and idempotency field %d, want 7 and 1", got.KeyField, got.IdempotencyField)
	}
}

// TestStubIsTyped fails to compile if a stub has lost or gained a method that its modes allow.
func TestStubIsTyped(t *testing.T) {
	type signalOnly interface {
		Delay(context.Context, *workflowv1.DelayRequest, ...actor.CallOption) (*workflowv1.DelayResponse, error)
	}
	var _ signalOnly = workflowv1perdure.TripStub{}
	trip := reflect.TypeFor[workflowv1perdure.TripStub]()
	for _, name := range []string{"DelayAsync", "DelaySend", "WhereSend", "WhereAttach"} {
		if _, ok := trip.MethodByName(name); ok {
			t.Errorf("the stub has a method %s", name)
		}
	}
	for _, name := range []string{"Travel", "TravelAsync", "TravelSend", "TravelAttach", "Where", "WhereAsync"} {
		if _, ok := trip.MethodByName(name); !ok {
			t.Errorf("the stub has no method %s", name)
		}
	}
}
