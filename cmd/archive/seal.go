// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/scrypt"
)

// The sealed form: a header (the magic line, the cost of key derivation, the
// salt), then chunks of AES-256-GCM. The key comes from the passphrase by scrypt
// (RFC 7914). Each nonce is the number of the chunk and whether it is the last
// one, and each chunk authenticates the header, so that nothing can be cut off,
// put elsewhere, changed or added: the STREAM construction of Hoang,
// Reyhanitabar, Rogaway and Vizár (2015).
const (
	magic     = "kontor-archive-1\n"
	saltSize  = 16
	chunkSize = 64 << 10
	tagSize   = 16

	headerSize = len(magic) + 1 + saltSize
	maxCost    = 20 // 2^20: a gigabyte of memory; a hostile header must not ask for more
)

// cost is log2 of scrypt's N; tests take less.
var cost byte = 16

var (
	// ErrFormat says that a file is not an archive of this kind.
	ErrFormat = errors.New("this is not an archive of Kontor")
	// ErrSealed says that an archive cannot be opened: the passphrase is wrong,
	// or the archive was changed or is not complete.
	ErrSealed = errors.New("wrong passphrase, or the archive was damaged or changed")
)

func newCipher(passphrase, header []byte) (cipher.AEAD, error) {
	key, err := scrypt.Key(passphrase, header[len(magic)+1:], 1<<header[len(magic)], 8, 1, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is that of chunk n.
func nonce(n uint64, last bool) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b[3:], n)
	if last {
		b[11] = 1
	}
	return b
}

// sealer encrypts what is written to it.
type sealer struct {
	w      io.Writer
	aead   cipher.AEAD
	header []byte
	buf    []byte
	n      uint64
}

func newSealer(w io.Writer, passphrase []byte) (*sealer, error) {
	header := append([]byte(magic), cost)
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	header = append(header, salt...)
	aead, err := newCipher(passphrase, header)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	return &sealer{w: w, aead: aead, header: header, buf: make([]byte, 0, chunkSize+tagSize)}, nil
}

func (s *sealer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if len(s.buf) == chunkSize { // more follows, so it is not the last one
			if err := s.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), chunkSize-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

func (s *sealer) flush(last bool) error {
	sealed := s.aead.Seal(s.buf[:0], nonce(s.n, last), s.buf, s.header)
	s.n++
	s.buf = s.buf[:0]
	_, err := s.w.Write(sealed)
	return err
}

// Close writes the last chunk.
func (s *sealer) Close() error { return s.flush(true) }

// opener decrypts. It returns no byte that is not authentic, and io.EOF only
// after the chunk that was written last.
type opener struct {
	r      *bufio.Reader
	aead   cipher.AEAD
	header []byte
	sealed []byte
	plain  []byte // not read yet
	n      uint64
	done   bool
}

func newOpener(r io.Reader, passphrase []byte) (*opener, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil || !bytes.HasPrefix(header, []byte(magic)) {
		return nil, ErrFormat
	}
	if c := header[len(magic)]; c == 0 || c > maxCost {
		return nil, fmt.Errorf("%w: cost %d", ErrFormat, c)
	}
	aead, err := newCipher(passphrase, header)
	if err != nil {
		return nil, err
	}
	return &opener{r: bufio.NewReaderSize(r, chunkSize+tagSize), aead: aead, header: header, sealed: make([]byte, chunkSize+tagSize)}, nil
}

func (o *opener) Read(p []byte) (int, error) {
	for len(o.plain) == 0 {
		if o.done {
			return 0, io.EOF
		}
		if err := o.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

func (o *opener) next() error {
	n, err := io.ReadFull(o.r, o.sealed)
	last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !last {
		return err
	}
	if !last {
		if _, err := o.r.Peek(1); errors.Is(err, io.EOF) {
			last = true
		} else if err != nil {
			return err
		}
	}
	if o.plain, err = o.aead.Open(o.sealed[:0], nonce(o.n, last), o.sealed[:n], o.header); err != nil {
		return ErrSealed
	}
	o.n++
	o.done = last
	return nil
}
