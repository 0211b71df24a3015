// SPDX-License-Identifier: Apache-2.0

package tsa

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	maxRequest          = 8 << 10
	contentTypeQuery    = "application/timestamp-query"
	contentTypeResponse = "application/timestamp-reply"
)

// failure is PKIFailureInfo: a bit number (RFC 3161, section 2.4.2).
type failure int

const (
	badAlg              failure = 0
	badRequest          failure = 2
	badDataFormat       failure = 5
	timeNotAvailable    failure = 14
	unacceptedPolicy    failure = 15
	unacceptedExtension failure = 16
	addInfoNotAvailable failure = 17
	systemFailure       failure = 25
)

var failureNames = map[failure]string{
	badAlg: "badAlg", badRequest: "badRequest", badDataFormat: "badDataFormat",
	timeNotAvailable: "timeNotAvailable", unacceptedPolicy: "unacceptedPolicy",
	unacceptedExtension: "unacceptedExtension", addInfoNotAvailable: "addInfoNotAvailable",
	systemFailure: "systemFailure",
}

// statuses of PKIStatus.
const (
	statusGranted         = 0
	statusGrantedWithMods = 1
	statusRejection       = 2
)

// newRequest makes a TimeStampReq of the form X-Road sends: no policy, no nonce,
// no certificate asked for.
func newRequest(h crypto.Hash, hashed []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		addImprint(b, h, hashed)
	})
	return b.Bytes()
}

func addImprint(b *cryptobyte.Builder, h crypto.Hash, hashed []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidOf(h))
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(hashed)
	})
}

// request is a parsed TimeStampReq.
type request struct {
	hash     crypto.Hash
	hashed   []byte
	policy   asn1.ObjectIdentifier // nil if none is asked for
	nonce    *big.Int              // nil if absent
	certReq  bool
	extended bool // has extensions, all of which are unknown here
}

// parseRequest reads a TimeStampReq strictly as DER.
func parseRequest(der []byte) (*request, failure, bool) {
	s := cryptobyte.String(der)
	var seq, imprint, exts cryptobyte.String
	var version int
	q := new(request)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || !seq.ReadASN1Integer(&version) ||
		!seq.ReadASN1(&imprint, cbasn1.SEQUENCE) {
		return nil, badDataFormat, false
	}
	if version != 1 {
		return nil, badRequest, false
	}
	if seq.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) && !seq.ReadASN1ObjectIdentifier(&q.policy) {
		return nil, badDataFormat, false
	}
	if seq.PeekASN1Tag(cbasn1.INTEGER) {
		q.nonce = new(big.Int)
		if !seq.ReadASN1Integer(q.nonce) {
			return nil, badDataFormat, false
		}
	}
	if !readBoolean(&seq, &q.certReq) ||
		!seq.ReadOptionalASN1(&exts, &q.extended, explicit(0)) || !seq.Empty() {
		return nil, badDataFormat, false
	}
	if _, ok := readExtensions(exts); !ok {
		return nil, badDataFormat, false
	}
	alg := imprint
	oid, ok := readAlgorithm(&alg)
	if !ok {
		return nil, badDataFormat, false
	}
	if hashOf(oid) == 0 {
		return nil, badAlg, false
	}
	var err error
	if q.hash, q.hashed, err = parseImprint(imprint); err != nil {
		return nil, badDataFormat, false
	}
	return q, 0, true
}

// rejection makes a TimeStampResp that refuses.
func rejection(f failure, text string) []byte {
	bits := make([]byte, 2+int(f)/8)
	bits[0] = byte(7 - f%8) // unused bits
	bits[1+f/8] = 0x80 >> (f % 8)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(statusRejection)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
			})
			b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes(bits) })
		})
	})
	return b.BytesOrPanic() // far from any length that could fail
}

// granted makes a TimeStampResp with a token.
func granted(token []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(statusGranted) })
		b.AddBytes(token)
	})
	return b.Bytes()
}

// parseResponse reads a TimeStampResp, DER or BER, and returns its token in DER.
// A refusal is ErrRejected.
func parseResponse(b []byte) (token []byte, err error) {
	der, err := toDER(b)
	if err != nil {
		return nil, err
	}
	s := cryptobyte.String(der)
	var seq, info, text cryptobyte.String
	var hasText bool
	var status int
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() ||
		!seq.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&status) ||
		!info.ReadOptionalASN1(&text, &hasText, cbasn1.SEQUENCE) {
		return nil, malformed("response")
	}
	var fail asn1.BitString
	if !info.Empty() && (!info.ReadASN1BitString(&fail) || !info.Empty()) {
		return nil, malformed("response status")
	}
	if status != statusGranted && status != statusGrantedWithMods {
		return nil, fmt.Errorf("%w: status %d%s", ErrRejected, status, describe(fail, text))
	}
	if len(seq) == 0 {
		return nil, malformed("response without token")
	}
	return seq, nil
}

// describe tells a refusal's reasons and free text, which is foreign and quoted.
func describe(fail asn1.BitString, text cryptobyte.String) string {
	var why []string
	for _, f := range []failure{badAlg, badRequest, badDataFormat, timeNotAvailable,
		unacceptedPolicy, unacceptedExtension, addInfoNotAvailable, systemFailure} {
		if fail.At(int(f)) == 1 {
			why = append(why, failureNames[f])
		}
	}
	var line cryptobyte.String
	if text.ReadASN1(&line, cbasn1.UTF8String) {
		why = append(why, fmt.Sprintf("%.200q", string(line)))
	}
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, ", ") + ")"
}
