package wire

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

func TestFrame(t *testing.T) {
	items := []Item{
		{Group: 0, Kind: KindRaft, Data: []byte("a")},
		{Group: 1<<32 - 1, Kind: KindQuestion, Life: 1 << 63, Data: []byte{}},
		{Group: 7, Kind: 200, Life: 3, Data: bytes.Repeat([]byte("x"), 1000)},
	}
	var frame []byte
	size := 1
	for _, item := range items {
		frame = AppendItem(frame, item)
		size += ItemBytes + len(item.Data)
	}
	if len(frame) > size {
		t.Errorf("the frame has %d bytes, expected at most %d", len(frame), size)
	}
	var got []Item
	if err := DecodeFrame(frame, func(item Item) error { got = append(got, item); return nil }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, items) {
		t.Errorf("got %v, want %v", got, items)
	}
	stop := errors.New("stop")
	if err := DecodeFrame(frame, func(Item) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what fn returned", err)
	}
	for n := range frame {
		whole := 0
		err := DecodeFrame(frame[:n], func(Item) error { whole++; return nil })
		boundary := n == len(AppendItem(nil, items[0])) || n == len(AppendItem(AppendItem(nil, items[0]), items[1])) || n == 1
		if (err == nil) != boundary || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("cut after %d bytes: %d items, %v", n, whole, err)
		}
	}
	if err := DecodeFrame([]byte{frameFormat + 1}, nil); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestOpinionAndHeader(t *testing.T) {
	opinion := Opinion{Term: 1, Index: 1 << 60, Leader: 3}
	if got, err := DecodeOpinion(AppendOpinion(nil, opinion)); err != nil || got != opinion {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := DecodeOpinion([]byte{1, 2}); !errors.Is(err, ErrMalformed) {
		t.Errorf("an opinion cut short: %v", err)
	}
	header := Header{Life: 4, Applied: []byte("at"), Message: []byte("message")}
	data := AppendHeader(nil, header)
	if got, err := DecodeHeader(data); err != nil || !reflect.DeepEqual(got, header) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range data {
		if _, err := DecodeHeader(data[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("a header of %d bytes: %v", n, err)
		}
	}
	if _, err := DecodeHeader(append(data, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a header with more behind it: %v", err)
	}
	if _, err := DecodeHeader([]byte{snapshotFormat + 1}); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer header: %v", err)
	}
}

// chunks is a snapshot of rows, a chunk for each two.
func chunks(rows int) (chunks [][]byte, pairs map[string]string) {
	var totals Totals
	var chunk Chunk
	pairs = map[string]string{}
	for i := range rows {
		key, value := fmt.Sprintf("key %d", i), fmt.Sprintf("value %d", i*i)
		pairs[key] = value
		chunk.Add([]byte(key), []byte(value))
		if i%2 == 1 {
			chunks = append(chunks, totals.Take(&chunk))
		}
	}
	if chunk.Bytes() > 0 {
		chunks = append(chunks, totals.Take(&chunk))
	}
	return append(chunks, totals.End()), pairs
}

func readAll(chunks [][]byte) (pairs map[string]string, ended bool, err error) {
	var totals Totals
	pairs = map[string]string{}
	for _, chunk := range chunks {
		if err := totals.Read(chunk, func(key, value []byte) { pairs[string(key)] = string(value) }); err != nil {
			return pairs, totals.Ended(), err
		}
	}
	return pairs, totals.Ended(), nil
}

func TestSnapshot(t *testing.T) {
	for _, rows := range []int{0, 1, 2, 7} {
		sent, want := chunks(rows)
		got, ended, err := readAll(sent)
		if err != nil || !ended || !reflect.DeepEqual(got, want) {
			t.Errorf("%d rows: got %v, ended %v, %v", rows, got, ended, err)
		}
	}
}

func TestSnapshotDamage(t *testing.T) {
	whole, _ := chunks(7)
	for i, chunk := range whole {
		for bit := range 8 * len(chunk) {
			damaged := append([][]byte(nil), whole...)
			damaged[i] = bytes.Clone(chunk)
			damaged[i][bit/8] ^= 1 << (bit % 8)
			if _, ended, err := readAll(damaged); err == nil || ended {
				t.Fatalf("chunk %d, bit %d flipped: read", i, bit)
			}
		}
		lost := append(append([][]byte(nil), whole[:i]...), whole[i+1:]...)
		if _, ended, err := readAll(lost); i < len(whole)-1 && (!errors.Is(err, ErrChecksum) || ended) || i == len(whole)-1 && (err != nil || ended) {
			t.Errorf("chunk %d lost: ended %v, %v", i, ended, err)
		}
		twice := append(append([][]byte(nil), whole[:i+1]...), whole[i:]...)
		if _, _, err := readAll(twice); err == nil {
			t.Errorf("chunk %d twice: read", i)
		}
	}
	swapped := append([][]byte{whole[1], whole[0]}, whole[2:]...)
	if _, _, err := readAll(swapped); !errors.Is(err, ErrChecksum) {
		t.Errorf("chunks swapped: %v", err)
	}
	if err := new(Totals).Read([]byte{1, 2}, nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("a chunk of two bytes: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	whole, _ := chunks(3)
	for _, chunk := range whole {
		f.Add(chunk)
	}
	f.Add(AppendItem(nil, Item{Group: 1, Kind: KindRaft, Data: []byte("x")}))
	f.Add(AppendHeader(nil, Header{Applied: []byte("a"), Message: []byte("b")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = DecodeFrame(data, func(Item) error { return nil })
		_, _ = DecodeOpinion(data)
		_, _ = DecodeHeader(data)
		_ = new(Totals).Read(data, func(_, _ []byte) {})
	})
}
