// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "os"

// isTerminal reports whether somebody sits at the other end of f.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
