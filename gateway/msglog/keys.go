// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"crypto/sha512"
	"encoding/binary"
	"time"
)

// The key space of the index. Numbers are big endian, so that byte order is
// numeric order.
//
//	i hash(message id) t seq             record, empty value
//	c hash(client) second block          block that has such records, empty value; likewise
//	s hash(service) second block
//	t second block
//	B block                              its place, its last record, its c, s and t keys
//	T last                               place of the time-stamp of the records up to last
//	b name                               body file: seq of its record, size
//	m name                               single values
//
// A block is a run of records that lie one behind the other, and its number is
// that of the first. The index is narrowed by a hash of fixed length and the
// record itself decides, so names of any length and hostile collisions cost
// time, never a wrong answer.
const (
	prefixID      = 'i'
	prefixClient  = 'c'
	prefixService = 's'
	prefixTime    = 't'
	prefixBlock   = 'B'
	prefixStamp   = 'T'
	prefixBody    = 'b'

	hashLen = 8
)

var (
	keyFormat  = []byte("mformat")  // version of this layout
	keyIndexed = []byte("mindexed") // up to where the segments are in the index, and the state there
	keyCollect = []byte("mcollect") // bodies adopted below this number have been checked for records
)

func numberKey(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, n)
}

func nameKey(prefix byte, name string) []byte {
	return append([]byte{prefix}, name...)
}

// hashName is by what the index knows a message id, client or service.
func hashName(s string) uint64 {
	h := sha512.Sum512_256([]byte(s))
	return binary.BigEndian.Uint64(h[:hashLen])
}

// indexPrefix is what the keys of one value begin with; prefixTime has no value.
func indexPrefix(prefix byte, hash uint64) []byte {
	if prefix == prefixTime {
		return []byte{prefix}
	}
	return numberKey(prefix, hash)
}

// appendIndexKey appends the key of an index entry: of a record under a time, or
// of a block under a second.
func appendIndexKey(b []byte, prefix byte, hash, t, seq uint64) []byte {
	b = append(b, prefix)
	if prefix != prefixTime {
		b = binary.BigEndian.AppendUint64(b, hash)
	}
	b = binary.BigEndian.AppendUint64(b, t)
	return binary.BigEndian.AppendUint64(b, seq)
}

// second is the time by which blocks are found, in nanoseconds since 1970.
func second(nanos int64) uint64 { return uint64(nanos) / uint64(time.Second) * uint64(time.Second) }

// keyNumber returns the number at the end of a key.
func keyNumber(key []byte) uint64 {
	if len(key) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key[len(key)-8:])
}

// prefixEnd returns the first key after all keys that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
