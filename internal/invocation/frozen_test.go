package invocation

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func frozenID() ID {
	var id ID
	for i := range id {
		id[i] = byte(i * 11)
	}
	return id
}

// TestHashIsFrozen: another hash would look for every object in another partition.
func TestHashIsFrozen(t *testing.T) {
	for _, c := range []struct {
		target Target
		want   uint64
	}{
		{Target{"bank.v1.AccountService", "alice", "Deposit"}, 0xebd8f2487bfbdb10},
		{Target{"bank.v1.AccountService", "alice", "Withdraw"}, 0xebd8f2487bfbdb10},
		{Target{"bank.v1.AccountService", "", "X"}, 0x419e77189bde04d},
		{Target{"", "", ""}, 0xe934a84adb052768},
		{Target{"s", "\x00ключ", "H"}, 0x352b29553afe8201},
	} {
		if got := c.target.Hash(); got != c.want {
			t.Errorf("%s: hash %#x, was %#x", c.target, got, c.want)
		}
	}
	if got := PartitionOf(0xebd8f2487bfbdb10, 64); got != 17 {
		t.Errorf("partition %d, was %d", got, 17)
	}
	for count := uint32(1); count < 100; count++ {
		if p := PartitionOf(^uint64(0)-uint64(count), count); p < 1 || p > count {
			t.Errorf("partition %d of %d", p, count)
		}
	}
}

// TestDerivedIDIsFrozen: another id would let a repeated call run again.
func TestDerivedIDIsFrozen(t *testing.T) {
	for _, c := range []struct {
		id   ID
		want string
	}{
		{DerivedID(Target{"bank.v1.AccountService", "alice", "Deposit"}, "idem", "key-1"), "inv_xfcf4j3vzfdh1rq63wtq85vygb67agqn1dnn3h0"},
		{DerivedID(Target{"bank.v1.TransferService", "", "Transfer"}, "idem", "key-1"), "inv_8p6w9kman0tf36t2m9nk6te6r82y2a2wcr3p3d0"},
		{DerivedID(Target{"orders.v1.OrderWorkflow", "o-17", "Run"}, "run"), "inv_13ewzcwyen6gb0ejfwhp663kb1jwa8677jdwtw0"},
		{frozenID(), "inv_005hc89c6x14tp33dswr93wtmprbqhphvkkz5z8"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("%s, was %s", got, c.want)
		}
		back, err := ParseID(c.want)
		if err != nil || back != c.id {
			t.Errorf("ParseID(%s): %s, %v", c.want, back, err)
		}
	}
}

func TestDerivedIDsDiffer(t *testing.T) {
	seen := map[ID]string{}
	for _, service := range []string{"", "a", "ab", "a\x00"} {
		for _, key := range []string{"", "a", "b", "ab"} {
			for _, handler := range []string{"", "a", "ba"} {
				for _, kind := range []string{"idem", "call"} {
					for _, parts := range [][]string{nil, {""}, {"a"}, {"a", "b"}, {"ab"}, {"", "ab"}} {
						id := DerivedID(Target{service, key, handler}, kind, parts...)
						name := fmt.Sprintf("%q %q %q %q %q", service, key, handler, kind, parts)
						if other, ok := seen[id]; ok {
							t.Errorf("%s and %s have one id", name, other)
						}
						seen[id] = name
						if key != "" && id.Hash() != (Target{service, key, "other"}).Hash() {
							t.Errorf("%s is not in the partition of its object", name)
						}
					}
				}
			}
		}
	}
}

func TestAwakeableID(t *testing.T) {
	if got, want := AwakeableID(frozenID(), 1<<31), "awk_005hc89c6x14tp33dswr93wtmprbqhphvkkz5z8_2147483648"; got != want {
		t.Errorf("%s, was %s", got, want)
	}
	for _, entry := range []uint32{0, 1, 1<<32 - 1} {
		id, back, err := ParseAwakeableID(AwakeableID(frozenID(), entry))
		if err != nil || id != frozenID() || back != entry {
			t.Errorf("entry %d: %s %d %v", entry, id, back, err)
		}
	}
}

func TestParseRefusesGarbage(t *testing.T) {
	good := frozenID().String()
	for _, text := range []string{
		"", "inv_", good + "0", good[:len(good)-1], strings.ToUpper(good), " " + good, good + "\n",
		strings.Replace(good, "inv_", "awk_", 1), good[:10] + "i" + good[11:], good[:10] + "\xff" + good[11:],
		strings.Repeat("x", 1000),
	} {
		if id, err := ParseID(text); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseID(%q) = %s, %v", text, id, err)
		}
	}
	awakeable := AwakeableID(frozenID(), 7)
	for _, text := range []string{
		"", good, awakeable + "x", awakeable[:len(awakeable)-1], strings.Replace(awakeable, "_7", "_-7", 1),
		strings.Replace(awakeable, "_7", "_4294967296", 1), strings.Replace(awakeable, "_7", "", 1),
		strings.Replace(awakeable, "_7", "_+7", 1),
	} {
		if id, entry, err := ParseAwakeableID(text); !errors.Is(err, ErrBadAwakeableID) {
			t.Errorf("ParseAwakeableID(%q) = %s, %d, %v", text, id, entry, err)
		}
	}
}

// FuzzParseID: what is read is found again under its own name.
func FuzzParseID(f *testing.F) {
	f.Add(frozenID().String())
	f.Add(AwakeableID(frozenID(), 3))
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil {
			if again, err := ParseID(id.String()); err != nil || again != id {
				t.Errorf("%q is read as %s and then as %s, %v", text, id, again, err)
			}
		}
		if id, entry, err := ParseAwakeableID(text); err == nil {
			if again, at, err := ParseAwakeableID(AwakeableID(id, entry)); err != nil || again != id || at != entry {
				t.Errorf("%q is read as %s, and then as %s, %v", text, AwakeableID(id, entry), AwakeableID(again, at), err)
			}
		}
	})
}
