package nodelog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

const (
	frameMagic       = 0x4c444e50 // "PNDL"
	frameHeaderBytes = 36
	// maxFrameBytes keeps offsets and lengths in 32 bits with room to spare.
	maxFrameBytes = 1 << 30
)

// frameKind says what follows the frame header.
type frameKind uint8

const (
	// frameData has a payload of records.
	frameData frameKind = 1
	// frameMarker has no payload. It says that the frame with its sequence was synced. The
	// next frame overwrites it.
	frameMarker frameKind = 2
	// frameSeal is a marker that also says that the next segment exists.
	frameSeal frameKind = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameHeader is what precedes each payload. Layout, little endian: magic u32, payload length
// u32, sequence u64, segment u32, offset u32, payload checksum u32, kind u8, three zeros,
// checksum u32 over the log's id and everything before.
type frameHeader struct {
	length     uint32
	sequence   uint64
	segment    uint32
	offset     uint32
	payloadCRC uint32
	kind       frameKind
}

func (h frameHeader) put(dst []byte, id logID) {
	binary.LittleEndian.PutUint32(dst[0:], frameMagic)
	binary.LittleEndian.PutUint32(dst[4:], h.length)
	binary.LittleEndian.PutUint64(dst[8:], h.sequence)
	binary.LittleEndian.PutUint32(dst[16:], h.segment)
	binary.LittleEndian.PutUint32(dst[20:], h.offset)
	binary.LittleEndian.PutUint32(dst[24:], h.payloadCRC)
	binary.LittleEndian.PutUint32(dst[28:], uint32(h.kind))
	binary.LittleEndian.PutUint32(dst[32:], headerCRC(dst[:32], id))
}

func headerCRC(head []byte, id logID) uint32 {
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, head)
}

// parseFrameHeader returns ok false unless src starts with an intact header that was written
// for this log, segment and offset.
func parseFrameHeader(src []byte, id logID, segment, offset uint32) (h frameHeader, ok bool) {
	if len(src) < frameHeaderBytes ||
		binary.LittleEndian.Uint32(src) != frameMagic ||
		binary.LittleEndian.Uint32(src[32:]) != headerCRC(src[:32], id) {
		return frameHeader{}, false
	}
	h = frameHeader{
		length:     binary.LittleEndian.Uint32(src[4:]),
		sequence:   binary.LittleEndian.Uint64(src[8:]),
		segment:    binary.LittleEndian.Uint32(src[16:]),
		offset:     binary.LittleEndian.Uint32(src[20:]),
		payloadCRC: binary.LittleEndian.Uint32(src[24:]),
		kind:       frameKind(src[28]),
	}
	return h, h.segment == segment && h.offset == offset
}

// findFrameHeader returns the offset of the first intact frame header at or after from, or -1.
func findFrameHeader(content []byte, from int, id logID, segment uint32) int {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], frameMagic)
	for from < len(content) {
		i := bytes.Index(content[from:], magic[:])
		if i < 0 {
			return -1
		}
		from += i
		if _, ok := parseFrameHeader(content[from:], id, segment, uint32(from)); ok {
			return from
		}
		from++
	}
	return -1
}
