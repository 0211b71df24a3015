// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package roles

// dropProgram does nothing: only Linux is told here.
func dropProgram() error { return nil }
