// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A block holds the records that were stored together: in the same second, as
// X-Road stores what it gets in one request. Its head is
//
//	length of the rest, uint32 LE | CRC-32C of the rest, uint32 LE
//
// and the rest
//
//	time, s since 1970, int64 LE | number of records, uvarint | records
//
// A record is its fields in the order of the table, without the time. Numbers
// are uvarints, 0 for absent, else the value plus one. A text is a uvarint: 0
// for none; 1 for one that follows with its length, and gets the next number in
// the block's table unless the field is unique; n + 2 for number n there.
const (
	blockHead = 8
	blockTime = 8
	// maxBlock bounds what is read into memory.
	maxBlock = 16 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errBlock   = errors.New("damaged block of operational data")
)

// encoder writes blocks. It keeps its memory from one to the next.
type encoder struct {
	table map[string]uint64
	body  []byte
	n     int
}

func (e *encoder) add(w *row) {
	for i := range fields {
		f := &fields[i]
		switch {
		case f.kind != text:
			if f.at != numberStored {
				e.body = binary.AppendUvarint(e.body, uint64(w.numbers[f.at]))
			}
		default:
			e.text(w.texts[f.at], f.unique)
		}
	}
	e.n++
}

func (e *encoder) text(s string, unique bool) {
	if s == "" {
		e.body = append(e.body, 0)
		return
	}
	if !unique {
		if n, ok := e.table[s]; ok {
			e.body = binary.AppendUvarint(e.body, n+2)
			return
		}
		e.table[s] = uint64(len(e.table))
	}
	e.body = append(e.body, 1)
	e.body = binary.AppendUvarint(e.body, uint64(len(s)))
	e.body = append(e.body, s...)
}

// appendBlock appends what was added as a block of that time, and starts anew.
func (e *encoder) appendBlock(b []byte, second int64) []byte {
	start := len(b)
	b = append(b, make([]byte, blockHead)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(second))
	b = binary.AppendUvarint(b, uint64(e.n))
	b = append(b, e.body...)
	rest := b[start+blockHead:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(rest)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(rest, castagnoli))
	clear(e.table)
	e.body, e.n = e.body[:0], 0
	return b
}

// decodeBlock calls f for each record of a block, given without its head. The
// row is valid until f returns; f returns false to stop.
func decodeBlock(rest []byte, f func(*row) bool) error {
	if len(rest) < blockTime {
		return errBlock
	}
	second := int64(binary.LittleEndian.Uint64(rest))
	d := decoder{b: rest[blockTime:]}
	n := d.uvarint()
	var w row
	for range n {
		for i := range fields {
			f := &fields[i]
			switch {
			case f.kind != text:
				if f.at != numberStored {
					w.numbers[f.at] = Number(d.uvarint())
				}
			default:
				w.texts[f.at] = d.text(f.unique)
			}
		}
		if d.bad {
			return errBlock
		}
		w.numbers[numberStored] = Num(second)
		if !f(&w) {
			return nil
		}
	}
	if d.bad || len(d.b) > 0 {
		return errBlock
	}
	return nil
}

type decoder struct {
	b     []byte
	table []string
	bad   bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text(unique bool) string {
	switch n := d.uvarint(); {
	case n == 0:
		return ""
	case n == 1:
		size := d.uvarint()
		if size > uint64(len(d.b)) {
			d.bad, d.b = true, nil
			return ""
		}
		s := string(d.b[:size])
		d.b = d.b[size:]
		if !unique {
			d.table = append(d.table, s)
		}
		return s
	case n-2 < uint64(len(d.table)):
		return d.table[n-2]
	}
	d.bad, d.b = true, nil
	return ""
}
