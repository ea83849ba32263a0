package procfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestParseStatCountsFromTheLastParenthesis(t *testing.T) {
	line := []byte("4242 (a (b) c) S 1 4242 4242 0 -1 4194560 1 0 0 0 123 77 0 0 20 0 9 0 100 999999 2500 18446744073709551615 1 1 0\n")
	cpu, resident, err := parseStat(line)
	if err != nil {
		t.Fatal(err)
	}
	if cpu != 2*time.Second || resident != 2500*int64(os.Getpagesize()) {
		t.Errorf("cpu %v, resident %d, want 2s and 2500 pages", cpu, resident)
	}
	for _, bad := range []string{"", "1 (x) S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 nan 12 13 14 15 16 17 18 19 20 21 22"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) accepted", bad)
		}
	}
}

func TestParseHostAndDiskstats(t *testing.T) {
	host, err := parseHost([]byte("cpu  100 10 40 9999 5 6 7 30 0 0\ncpu0 1 2 3\n"))
	if err != nil || host.Busy != 1500*time.Millisecond || host.Steal != 300*time.Millisecond {
		t.Errorf("host %+v, %v, want 1.5s busy, 300ms steal", host, err)
	}
	if _, err := parseHost([]byte("intr 1\n")); err == nil {
		t.Error("a /proc/stat without cpu line was accepted")
	}
	text := []byte("   7 0 loop0 1 2 3 4 5 6 7 8\n 254 0 vda 1 2 3 4 5 6 100 8 9 10 11 12 13 14 15 16 17\n 8 1 old 1 2 3 4 5 6 2 8 9 10 11\n")
	if device, err := parseDiskstats(text, 254, 0); err != nil || device != (Device{51200, 16}) {
		t.Errorf("device %+v, %v, want 51200 bytes, 16 flushes", device, err)
	}
	if device, err := parseDiskstats(text, 8, 1); err != nil || device != (Device{1024, 0}) {
		t.Errorf("device of an old kernel %+v, %v, want 1024 bytes", device, err)
	}
	if _, err := parseDiskstats(text, 254, 1); err == nil {
		t.Error("a device that is not listed was found")
	}
}

func TestReadProcessSeesOwnWork(t *testing.T) {
	before, err := ReadProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "f"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, err := ReadProcess(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after.CPU > before.CPU {
			if after.ResidentBytes <= 0 {
				t.Errorf("resident %d bytes", after.ResidentBytes)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("10 s of reading cost no CPU time")
		}
	}
	if _, err := ReadProcess(1 << 30); err == nil {
		t.Error("a process that does not exist was read")
	}
	if _, err := ReadHost(); err != nil {
		t.Error(err)
	}
}
