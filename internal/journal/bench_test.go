package journal_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

var entries = map[string]*recordv1.Entry{
	"run": {Site: "bank.go:42", At: 1763860000000, Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "pay out"}}},
	"call": {Site: "bank.go:43", At: 1763860000000, Entry: &recordv1.Entry_Call{Call: &recordv1.Call{Invoke: &recordv1.Invoke{
		InvocationId: make([]byte, 24), Mode: 3, Input: make([]byte, 64), Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Target: &recordv1.Target{Service: "bank.v1.AccountService", Key: "alice", Handler: "Deposit"},
	}}}},
}

func BenchmarkEncode(b *testing.B) {
	for name, entry := range entries {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := proto.Marshal(entry); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, entry := range entries {
		data, err := proto.Marshal(entry)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(data, &recordv1.Entry{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
