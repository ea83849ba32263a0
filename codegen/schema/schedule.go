package schema

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perdure/perdure/internal/calendar"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.DeclaredSchedule, for positions.
const (
	scheduleNameField    = 1
	scheduleCronField    = 2
	scheduleZoneField    = 3
	scheduleEveryField   = 4
	scheduleOffsetField  = 5
	scheduleJitterField  = 6
	scheduleOverlapField = 7
	scheduleMisfireField = 8
	scheduleLimitField   = 9
	scheduleGraceField   = 10
	scheduleKeyField     = 11
	scheduleRequestField = 12
	scheduleDueField     = 13
)

// maxMisfires is the most due times that a schedule makes up for.
const maxMisfires = 1000

// duePlaceholder in a key stands for the due time.
const duePlaceholder = "{due}"

func (r *reader) schedules(service *Service, method *Method, declared []*perdurev1.DeclaredSchedule) {
	if len(declared) > 0 && method.Mode == perdurev1.Mode_READ {
		r.report(method.Desc, methodOption(schedulesField, 0), "a READ handler changes nothing, so there is no use in calling it again and again; drop its schedules")
		return
	}
	for i, s := range declared {
		at := func(field ...int32) []int32 {
			return methodOption(append([]int32{schedulesField, int32(i)}, field...)...)
		}
		name := s.GetName()
		if r.slotName(method.Desc, at(scheduleNameField), "schedule", name) {
			if r.scheduleNames == nil {
				r.scheduleNames = map[protoreflect.FullName]bool{}
			}
			full := service.Desc.FullName() + protoreflect.FullName("/"+name)
			if r.scheduleNames[full] {
				r.report(method.Desc, at(scheduleNameField), "two schedules of the service are called %q; rename one of them", name)
			}
			r.scheduleNames[full] = true
		}
		r.timetable(method, at, s)
		r.schedulePolicies(method, at, s)
		r.scheduleTarget(service, method, at, s)
	}
}

// timetable checks when a schedule is due.
func (r *reader) timetable(method *Method, at func(...int32) []int32, s *perdurev1.DeclaredSchedule) {
	switch {
	case s.GetCron() != "" && s.GetEvery() != nil:
		r.report(method.Desc, at(scheduleEveryField), "schedule %q has both cron and every; drop one of them", s.GetName())
		return
	case s.GetCron() == "" && s.GetEvery() == nil:
		r.report(method.Desc, at(), "schedule %q is never due: give it cron, for example \"0 3 * * *\", or every", s.GetName())
		return
	case s.GetCron() != "":
		if _, err := calendar.ParseCron(s.GetCron()); err != nil {
			r.report(method.Desc, at(scheduleCronField), "schedule %q: %v", s.GetName(), err)
		}
		if s.GetOffset() != nil {
			r.report(method.Desc, at(scheduleOffsetField), "schedule %q: an offset goes with every; a cron expression says by itself when it is due", s.GetName())
		}
		if _, err := calendar.Zone(s.GetTimeZone()); err != nil {
			r.report(method.Desc, at(scheduleZoneField), "schedule %q: %v", s.GetName(), err)
		}
		return
	}
	if s.GetTimeZone() != "" {
		r.report(method.Desc, at(scheduleZoneField), "schedule %q: a time zone goes with cron; every is counted from 1970 in UTC", s.GetName())
	}
	every, ok := r.scheduleDuration(method, at(scheduleEveryField), s.GetName(), "every", s.GetEvery())
	offset, offsetOK := r.scheduleDuration(method, at(scheduleOffsetField), s.GetName(), "offset", s.GetOffset())
	if ok && offsetOK {
		if err := calendar.CheckInterval(every, offset); err != nil {
			r.report(method.Desc, at(scheduleEveryField), "schedule %q: %v", s.GetName(), err)
		}
	}
}

// scheduleDuration refuses what is no duration, or a negative one.
func (r *reader) scheduleDuration(method *Method, where []int32, name, field string, d *durationpb.Duration) (time.Duration, bool) {
	if d == nil {
		return 0, true
	}
	if err := d.CheckValid(); err != nil {
		r.report(method.Desc, where, "schedule %q: %s is not a valid duration: seconds and nanos must have the same sign, and nanos less than 1000000000", name, field)
		return 0, false
	}
	if most := int64(calendar.MaxEvery / time.Second); d.AsDuration() < 0 || d.GetSeconds() > most {
		r.report(method.Desc, where, "schedule %q: %s is %v; it must be from 0s to %v", name, field, d.AsDuration(), calendar.MaxEvery)
		return 0, false
	}
	return d.AsDuration(), true
}

func (r *reader) schedulePolicies(method *Method, at func(...int32) []int32, s *perdurev1.DeclaredSchedule) {
	r.scheduleDuration(method, at(scheduleJitterField), s.GetName(), "jitter", s.GetJitter())
	r.scheduleDuration(method, at(scheduleGraceField), s.GetName(), "misfire_grace", s.GetMisfireGrace())
	if perdurev1.Overlap_name[int32(s.GetOverlap())] == "" {
		r.report(method.Desc, at(scheduleOverlapField), "schedule %q: overlap %d is not known to this protoc-gen-go-perdure; update it", s.GetName(), s.GetOverlap())
	}
	if perdurev1.Misfire_name[int32(s.GetMisfire())] == "" {
		r.report(method.Desc, at(scheduleMisfireField), "schedule %q: misfire %d is not known to this protoc-gen-go-perdure; update it", s.GetName(), s.GetMisfire())
	}
	switch limit := s.GetMisfireLimit(); {
	case limit > maxMisfires:
		r.report(method.Desc, at(scheduleLimitField), "schedule %q: misfire_limit is %d; it must be at most %d", s.GetName(), limit, maxMisfires)
	case limit > 0 && s.GetMisfire() != perdurev1.Misfire_MISFIRE_ALL:
		r.report(method.Desc, at(scheduleLimitField), "schedule %q: misfire_limit has no effect without misfire: MISFIRE_ALL; drop it", s.GetName())
	}
}

// scheduleTarget checks the key and the request.
func (r *reader) scheduleTarget(service *Service, method *Method, at func(...int32) []int32, s *perdurev1.DeclaredSchedule) {
	key, name := s.GetKey(), s.GetName()
	template := strings.Contains(key, duePlaceholder)
	switch {
	case service.Kind == perdurev1.Kind_SERVICE && key != "":
		r.report(method.Desc, at(scheduleKeyField), "schedule %q: a SERVICE has no key; drop key: %q", name, key)
	case service.Kind == perdurev1.Kind_SERVICE:
	case key == "":
		r.report(method.Desc, at(), "schedule %q has no key: name the object that is called", name)
	case method.Mode == perdurev1.Mode_RUN && !template:
		r.report(method.Desc, at(scheduleKeyField), "schedule %q: the RUN handler runs once for each key, so the key must have %s in it, which stands for the due time", name, duePlaceholder)
	case method.Key != nil && !keyFits(method.Key.Kind(), key, template):
		r.report(method.Desc, at(scheduleKeyField), "schedule %q: key %q is not %s, as %s is", name, key, article(method.Key.Kind().String()), method.Key.FullName())
	}
	request := dynamicpb.NewMessage(method.Desc.Input())
	if text := s.GetRequest(); text != "" {
		if err := protojson.Unmarshal([]byte(text), request); err != nil {
			problem := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
			r.report(method.Desc, at(scheduleRequestField), "schedule %q: the request is not a %s in JSON: %s", name, method.Desc.Input().FullName(), problem)
			return
		}
		if method.Key != nil && request.Has(method.Key) {
			r.report(method.Desc, at(scheduleRequestField), "schedule %q: the request has the key field %s set; leave it out, key says it", name, method.Key.Name())
		}
	}
	if s.GetDueField() == "" {
		return
	}
	field := method.Desc.Input().Fields().ByName(protoreflect.Name(s.GetDueField()))
	switch {
	case field == nil:
		r.report(method.Desc, at(scheduleDueField), "schedule %q: %s has no field %q for the due time", name, method.Desc.Input().FullName(), s.GetDueField())
	case field.IsList() || field.Message() == nil || field.Message().FullName() != "google.protobuf.Timestamp":
		r.report(method.Desc, at(scheduleDueField), "schedule %q: field %s gets the due time, so it must be a google.protobuf.Timestamp", name, field.FullName())
	case field.ContainingOneof() != nil && !field.ContainingOneof().IsSynthetic():
		r.report(method.Desc, at(scheduleDueField), "schedule %q: field %s gets the due time, so it can't be part of a oneof", name, field.FullName())
	case request.Has(field):
		r.report(method.Desc, at(scheduleRequestField), "schedule %q: the request has the field %s set, which gets the due time; leave it out", name, field.Name())
	}
}

// keyFits reports whether a key is a value of its field. One with a due time in it is a text.
func keyFits(kind protoreflect.Kind, key string, template bool) bool {
	var err error
	switch kind {
	case protoreflect.StringKind:
		return true
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		_, err = strconv.ParseInt(key, 10, 32)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		_, err = strconv.ParseInt(key, 10, 64)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		_, err = strconv.ParseUint(key, 10, 32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		_, err = strconv.ParseUint(key, 10, 64)
	default:
		return true // which is another problem's
	}
	return err == nil && !template
}
