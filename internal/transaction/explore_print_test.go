package transaction_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
)

// fingerprint tells places apart: two with the same one go on alike. It is a hash of all that
// they have in memory, the engine's own fields included, so it follows whatever the engine
// keeps. What it leaves out is named in skipped.
type fingerprint [16]byte

// skipped are fields that are scratch memory or hold no state of their own.
var skipped = map[string]bool{
	"Engine.view": true, "Engine.draft": true, "Engine.out": true, "Engine.config": true, "Engine.changed": true,
	"Engine.name": true, "Engine.applied": true, "Engine.words": true, "Limits.host": true, "Limits.rows": true, "Asker.host": true, "Outbox.rows": true,
	"key.first": true, "Coordinator.few": true,
	"place.w": true, "place.engine": true, "place.view": true, "place.durable": true, "place.sends": true, "place.acks": true,
	"observed.program": true, // the rest of a handler names it
}

// printer writes values down, each in one way only.
type printer struct {
	out  []byte
	seen map[reflectPointer]int
}

type reflectPointer struct {
	at uintptr
	of reflect.Type
}

func (p *place) fingerprint() fingerprint {
	w := &printer{seen: map[reflectPointer]int{}}
	w.value(reflect.ValueOf(p).Elem())
	w.value(reflect.ValueOf(p.engine).Elem())
	for _, r := range []*rows{p.view, p.durable} {
		r.Map.Scan(func(key string, value []byte) bool {
			w.text(key)
			w.text(string(value))
			return true
		})
		w.text("end")
	}
	sum := sha256.Sum256(w.out)
	return fingerprint(sum[:16])
}

func (w *printer) number(n uint64) { w.out = binary.AppendUvarint(w.out, n) }

func (w *printer) text(s string) {
	w.number(uint64(len(s)))
	w.out = append(w.out, s...)
}

var messageType = reflect.TypeFor[proto.Message]()

func (w *printer) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			w.number(1)
		} else {
			w.number(0)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.number(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.number(v.Uint())
	case reflect.String:
		w.text(v.String())
	case reflect.Interface:
		if v.IsNil() {
			w.number(0)
			return
		}
		w.text(v.Elem().Type().String())
		w.value(v.Elem())
	case reflect.Pointer:
		w.pointer(v)
	case reflect.Struct:
		of := v.Type()
		for i := range of.NumField() {
			if !skipped[of.Name()+"."+of.Field(i).Name] {
				w.value(v.Field(i))
			}
		}
	case reflect.Array, reflect.Slice:
		w.number(uint64(v.Len()))
		for i := range v.Len() {
			w.value(v.Index(i))
		}
	case reflect.Map:
		w.entries(v)
	default:
		panic("no way to write down a " + v.Type().String())
	}
}

// pointer writes what it points to the first time, and then which time that was.
func (w *printer) pointer(v reflect.Value) {
	if v.IsNil() {
		w.number(0)
		return
	}
	at := reflectPointer{v.Pointer(), v.Type()}
	if n, ok := w.seen[at]; ok {
		w.number(uint64(n))
		return
	}
	w.seen[at] = len(w.seen) + 1
	w.number(uint64(len(w.seen)))
	if v.Type().Implements(messageType) {
		m := reflect.NewAt(v.Type().Elem(), v.UnsafePointer()).Interface().(proto.Message)
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		w.text(string(data))
		return
	}
	w.value(v.Elem())
}

// entries writes a map in the order of its keys, which are plain values.
func (w *printer) entries(v reflect.Value) {
	type entry struct {
		key   []byte
		value reflect.Value
	}
	var all []entry
	for iterator := v.MapRange(); iterator.Next(); {
		k := &printer{}
		k.value(iterator.Key())
		all = append(all, entry{k.out, iterator.Value()})
	}
	slices.SortFunc(all, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	w.number(uint64(len(all)))
	for _, e := range all {
		w.text(string(e.key))
		w.value(e.value)
	}
}
