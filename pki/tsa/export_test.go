// SPDX-License-Identifier: Apache-2.0

package tsa

// ParseResponse is parseResponse.
func ParseResponse(b []byte) ([]byte, error) { return parseResponse(b) }

// ToDER is toDER.
func ToDER(b []byte) ([]byte, error) { return toDER(b) }
