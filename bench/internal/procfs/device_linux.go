package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Device is what a block device has done since boot, for whomever.
type Device struct {
	WrittenBytes int64
	// Flushes of the device's write cache: what a sync ends in, unless the device has no such cache. Linux merges those
	// that are asked for at the same time.
	Flushes int64
}

// ReadDevice reads the device that holds path. It fails where the file system has no block device of its own (tmpfs,
// overlay, network).
func ReadDevice(path string) (Device, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return Device{}, fmt.Errorf("stat %s: %w", path, err)
	}
	text, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return Device{}, err
	}
	// The two halves of a device number are interleaved; see makedev(3).
	device := uint64(stat.Dev)
	major := device>>8&0xfff | device>>32&^0xfff
	minor := device&0xff | device>>12&^0xff
	return parseDiskstats(text, major, minor)
}

func parseDiskstats(text []byte, major, minor uint64) (Device, error) {
	const sectors, flushes = 9, 18 // flushes are there since Linux 5.5
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) <= sectors || fields[0] != strconv.FormatUint(major, 10) || fields[1] != strconv.FormatUint(minor, 10) {
			continue
		}
		written, err := strconv.ParseInt(fields[sectors], 10, 64)
		if err != nil {
			return Device{}, fmt.Errorf("/proc/diskstats: %w", err)
		}
		device := Device{WrittenBytes: written * 512}
		if len(fields) > flushes {
			if device.Flushes, err = strconv.ParseInt(fields[flushes], 10, 64); err != nil {
				return Device{}, fmt.Errorf("/proc/diskstats: %w", err)
			}
		}
		return device, nil
	}
	return Device{}, fmt.Errorf("/proc/diskstats has no device %d:%d", major, minor)
}

// FileSystem names the file system that holds path, and says whether an fdatasync there reaches a disk of this machine.
func FileSystem(path string) (name string, durable bool, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return "", false, fmt.Errorf("statfs %s: %w", path, err)
	}
	switch uint32(stat.Type) {
	case 0xef53:
		return "ext4", true, nil
	case 0x58465342:
		return "xfs", true, nil
	case 0x9123683e:
		return "btrfs", true, nil
	case 0x2fc12fc1:
		return "zfs", true, nil
	case 0xf2f52010:
		return "f2fs", true, nil
	case 0x794c7630:
		return "overlay", true, nil
	case 0x01021994:
		return "tmpfs", false, nil
	case 0x6969:
		return "nfs", false, nil
	default:
		return fmt.Sprintf("file system %#x", uint32(stat.Type)), true, nil
	}
}
