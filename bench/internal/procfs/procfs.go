// Package procfs reads what the kernel counts about processes, the host and a disk from Linux's /proc.
package procfs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc. It is USER_HZ, which is 100 on every Linux port Go has.
const tick = 10 * time.Millisecond

// Process is what one process has used since its start, all threads together.
type Process struct {
	// CPU is user plus system time, in steps of 10 ms.
	CPU time.Duration
	// ResidentBytes is the memory in RAM now.
	ResidentBytes int64
	// WrittenBytes is what the process caused to be sent to storage, counted when a page is dirtied.
	WrittenBytes int64
}

// Add returns the sum of p and other.
func (p Process) Add(other Process) Process {
	p.CPU += other.CPU
	p.ResidentBytes += other.ResidentBytes
	p.WrittenBytes += other.WrittenBytes
	return p
}

// ReadProcess reads process pid. It fails once the process is gone, or when it belongs to another user.
func ReadProcess(pid int) (Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var process Process
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process, err
	}
	if process.CPU, process.ResidentBytes, err = parseStat(stat); err != nil {
		return process, fmt.Errorf("%s/stat: %w", dir, err)
	}
	io, err := os.ReadFile(dir + "/io")
	if err != nil {
		return process, err
	}
	if process.WrittenBytes, err = parseIO(io); err != nil {
		return process, fmt.Errorf("%s/io: %w", dir, err)
	}
	return process, nil
}

// parseStat reads CPU time and resident bytes from a /proc/PID/stat line. The command name stands in parentheses and
// may itself hold spaces and parentheses, so fields are counted from the last one.
func parseStat(line []byte) (cpu time.Duration, residentBytes int64, err error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("no command name in %q", line)
	}
	fields := strings.Fields(string(line[end+1:]))
	const utime, stime, resident = 11, 12, 21 // of what follows the name: fields 14, 15 and 24 of proc(5)
	if len(fields) <= resident {
		return 0, 0, fmt.Errorf("%d fields after the command name, want at least %d", len(fields), resident+1)
	}
	var ticks, pages int64
	for _, field := range []string{fields[utime], fields[stime]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	if pages, err = strconv.ParseInt(fields[resident], 10, 64); err != nil {
		return 0, 0, err
	}
	return time.Duration(ticks) * tick, pages * int64(os.Getpagesize()), nil
}

func parseIO(text []byte) (writtenBytes int64, err error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("no write_bytes line")
}

// Host is the CPU time of the whole machine since boot.
type Host struct {
	// Busy is user, nice and system time of all processes. Interrupts are left out: they are charged to nobody.
	Busy time.Duration
	// Steal is time a hypervisor gave to others while this machine wanted to run.
	Steal time.Duration
}

// ReadHost reads the machine's counters.
func ReadHost() (Host, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Host{}, err
	}
	return parseHost(text)
}

func parseHost(text []byte) (Host, error) {
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return Host{}, fmt.Errorf("/proc/stat: first line is %q, want cpu and 8 numbers", line)
	}
	var ticks [9]int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Host{}, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks[i+1] = n
	}
	return Host{
		Busy:  time.Duration(ticks[1]+ticks[2]+ticks[3]) * tick,
		Steal: time.Duration(ticks[8]) * tick,
	}, nil
}

// Model describes the machine in one line: processor, logical processors, memory, kernel. What cannot be read is left out.
func Model() string {
	var parts []string
	processors := 0
	name := ""
	if file, err := os.Open("/proc/cpuinfo"); err == nil {
		for lines := bufio.NewScanner(file); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			switch strings.TrimSpace(key) {
			case "processor":
				processors++
			case "model name":
				name = strings.TrimSpace(value)
			}
		}
		file.Close()
	}
	parts = append(parts, fmt.Sprintf("%d logical processors", processors))
	if name != "" {
		parts[0] += " (" + name + ")"
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 && fields[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				parts = append(parts, fmt.Sprintf("%d GiB of memory", (kib+1<<19)>>20))
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "Linux "+strings.TrimSpace(string(text)))
	}
	return strings.Join(parts, ", ")
}
