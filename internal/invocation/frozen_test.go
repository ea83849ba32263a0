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

// TestAwakeableIDIsFrozen: people have ids in their mailboxes, without a nonce since they were made by an
// older version, and with one.
func TestAwakeableIDIsFrozen(t *testing.T) {
	const nonce = 0x1b0f1234ff
	for _, c := range []struct {
		id   AwakeableID
		want string
	}{
		{AwakeableID{frozenID(), 1 << 31, 0}, "awk_005hc89c6x14tp33dswr93wtmprbqhphvkkz5z8_2147483648"},
		{AwakeableID{frozenID(), 7, nonce}, "awk_005hc89c6x14tp33dswr93wtmprbqhphvkkz5z8_7_3c7h4d7z"},
		{AwakeableID{frozenID(), 0, 1}, "awk_005hc89c6x14tp33dswr93wtmprbqhphvkkz5z8_0_00000001"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("%s, was %s", got, c.want)
		}
		if back, err := ParseAwakeableID(c.want); err != nil || back != c.id {
			t.Errorf("ParseAwakeableID(%s): %v, %v", c.want, back, err)
		}
	}
	for _, entry := range []uint32{0, 1, 1<<32 - 1} {
		for _, nonce := range []uint64{0, 1, nonce, 1<<(8*NonceBytes) - 1} {
			id := AwakeableID{frozenID(), entry, nonce}
			if back, err := ParseAwakeableID(id.String()); err != nil || back != id {
				t.Errorf("%v: %v %v", id, back, err)
			}
		}
	}
}

// TestNonce: runs that began in different milliseconds, and other invocations, have others.
func TestNonce(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range 1000 {
		for _, id := range []ID{{}, frozenID()} {
			nonce := id.Nonce(int64(i))
			if nonce == 0 || nonce >= 1<<(8*NonceBytes) || seen[nonce] {
				t.Errorf("nonce %d of %s at %d", nonce, id, i)
			}
			seen[nonce] = true
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
	awakeable := AwakeableID{frozenID(), 7, 0}.String()
	nonce := AwakeableID{frozenID(), 7, 8}.String()
	for _, text := range []string{
		"", good, awakeable + "x", awakeable[:len(awakeable)-1], strings.Replace(awakeable, "_7", "_-7", 1),
		strings.Replace(awakeable, "_7", "_4294967296", 1), strings.Replace(awakeable, "_7", "", 1),
		strings.Replace(awakeable, "_7", "_+7", 1), awakeable + "_", awakeable + "_00000000", nonce + "0", nonce + "_", nonce[:len(nonce)-1],
		strings.ToUpper(nonce), nonce + "\n", nonce[:len(nonce)-1] + "i", nonce + "_00000008", awakeable + "_0000000r00000000",
	} {
		if id, err := ParseAwakeableID(text); !errors.Is(err, ErrBadAwakeableID) {
			t.Errorf("ParseAwakeableID(%q) = %v, %v", text, id, err)
		}
	}
}

// FuzzParseID: what is read is found again under its own name.
func FuzzParseID(f *testing.F) {
	f.Add(frozenID().String())
	f.Add(AwakeableID{frozenID(), 3, 0}.String())
	f.Add(AwakeableID{frozenID(), 3, 1 << 39}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil {
			if again, err := ParseID(id.String()); err != nil || again != id {
				t.Errorf("%q is read as %s and then as %s, %v", text, id, again, err)
			}
		}
		if id, err := ParseAwakeableID(text); err == nil {
			if again, err := ParseAwakeableID(id.String()); err != nil || again != id || id.String() != text {
				t.Errorf("%q is read as %v, and then as %v, %v", text, id, again, err)
			}
		}
	})
}
