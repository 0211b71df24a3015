// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"crypto/sha512"
	"encoding/binary"
	"time"
)

// The key space. Numbers are big endian, so that byte order is numeric order.
//
//	r seq                     record
//	i hash(message id) t seq  index, empty value; likewise
//	c hash(client)     t seq
//	s hash(service)    t seq
//	t                  t seq
//	T last                    time-stamp of the records up to last
//	p seq                     pattern of signature documents, that of record seq
//	b name                    body file: seq of its record, size
//	g name                    body file to remove
//	m name                    single values
//
// An index is narrowed by a hash of fixed length and the record itself decides,
// so names of any length and hostile collisions cost time, never a wrong answer.
const (
	prefixRecord  = 'r'
	prefixID      = 'i'
	prefixClient  = 'c'
	prefixService = 's'
	prefixTime    = 't'
	prefixStamp   = 'T'
	prefixBody    = 'b'
	prefixGarbage = 'g'
	prefixPattern = 'p'

	hashLen = 8
)

var (
	keyFormat  = []byte("mformat")  // version of this layout
	keyFailing = []byte("mfailing") // time of the first of the time-stamping failures that last
	keyPruned  = []byte("mpruned")  // the last record removed by retention
	keyCollect = []byte("mcollect") // bodies adopted below this number have been checked for records
	keyArchive = []byte("marchive") // digest and name of the last archive file
)

func numberKey(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, n)
}

func nameKey(prefix byte, name string) []byte {
	return append([]byte{prefix}, name...)
}

// appendIndexKey appends the key of one index entry; prefixTime has no value.
func appendIndexKey(b []byte, prefix byte, value string, t time.Time, seq uint64) []byte {
	b = appendIndexPrefix(b, prefix, value)
	b = binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
	return binary.BigEndian.AppendUint64(b, seq)
}

func indexPrefix(prefix byte, value string) []byte { return appendIndexPrefix(nil, prefix, value) }

func appendIndexPrefix(b []byte, prefix byte, value string) []byte {
	b = append(b, prefix)
	if prefix != prefixTime {
		h := sha512.Sum512_256([]byte(value))
		b = append(b, h[:hashLen]...)
	}
	return b
}

// indexKeys returns every index entry of a record.
func indexKeys(e *Entry) (keys [4][]byte) {
	all := make([]byte, 0, 4*(1+hashLen+8+8))
	for i, k := range [4]struct {
		prefix byte
		value  string
	}{{prefixID, e.MessageID}, {prefixClient, e.Client.String()}, {prefixService, e.Service.String()}, {prefixTime, ""}} {
		from := len(all)
		all = appendIndexKey(all, k.prefix, k.value, e.Time, e.Seq)
		keys[i] = all[from:len(all):len(all)]
	}
	return keys
}

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
