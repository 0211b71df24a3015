// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package network

// Relay needs Linux.
func Relay([]string) error { return ErrImpossible }
