// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"crypto/sha256"
	"crypto/sha512"
)

// IsOwnForm reports whether both documents pass the exact scanner.
func IsOwnForm(result, chain []byte) bool {
	_, r := scanResult(result)
	return r && scanChain(chain, new(hashChain))
}

// VerifyParsed is VerifyHashChain by way of the XML reader alone.
func VerifyParsed(result, chain []byte, parts map[string]Digest) error {
	return verifyHashChain(result, chain, parts, parseResult, parseChain)
}

// MixedExample computes by hand the root of the chain in TestMixedDigests.
func MixedExample(m Digest) Digest {
	inner := sha256.Sum256(list(appendSingleDigest(nil, m[:], algSHA512)))
	b := appendSingleDigest(nil, inner[:], algSHA256)
	b = appendSingleDigest(b, make([]byte, 32), algSHA256)
	return sha512.Sum512(list(b))
}

func list(content []byte) []byte { return append(derHeader(len(content)), content...) }

// CheckForm is checkForm.
var CheckForm = checkForm

// ReadHead says whom a message names as its sender.
func ReadHead(message []byte) (sender, service, messageID string, response bool, err error) {
	h, err := readHead(message)
	if err != nil {
		return "", "", "", false, err
	}
	return h.sender().String(), h.service.String(), h.id, h.response, nil
}
