// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"errors"
	"fmt"
	"slices"
)

// InsertTimestamp returns doc with a time-stamp token (DER) over the signature
// value as the first unsigned signature property. No other byte of the document
// changes, so signatures stay as good as they were, whoever made them. The
// document must parse and already hold an UnsignedSignatureProperties element;
// errors are ErrMalformed or ErrUnsupported.
func InsertTimestamp(doc, token []byte) ([]byte, error) {
	if len(token) == 0 {
		return nil, errors.New("empty time-stamp token")
	}
	sig, err := Parse(doc)
	if err != nil {
		return nil, err
	}
	if sig.insertAt == 0 {
		return nil, fmt.Errorf("%w: no place for a time-stamp", ErrUnsupported)
	}
	if len(sig.timestamps) == maxValues {
		return nil, fmt.Errorf("%w: too many time-stamps", ErrUnsupported)
	}
	stamp := make([]byte, 0, 4*len(sig.prefix)+2*(len(litTimestamp)+len(litToken))+6+strictBase64.EncodedLen(len(token)))
	stamp = append(append(append(stamp, '<'), sig.prefix...), litTimestamp...)
	stamp = append(append(append(stamp, '<'), sig.prefix...), litToken...)
	stamp = strictBase64.AppendEncode(stamp, token)
	stamp = append(append(append(stamp, "</"...), sig.prefix...), litToken...)
	stamp = append(append(append(stamp, "</"...), sig.prefix...), litTimestamp...)
	if len(doc)+len(stamp) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes with its time-stamp", ErrMalformed, MaxSize)
	}
	return slices.Concat(doc[:sig.insertAt], stamp, doc[sig.insertAt:]), nil
}
