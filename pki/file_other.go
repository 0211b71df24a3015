// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package pki

import "os"

// checkMode knows no file modes here; the directory's access list must do.
func checkMode(name string, _ bool) error {
	_, err := os.Stat(name)
	return err
}

// lock does nothing: tokens are served on Unix systems only, elsewhere this
// package verifies.
func lock(string) (unlock func(), err error) { return func() {}, nil }

// syncDir does nothing: directories cannot be synced here.
func syncDir(string) error { return nil }
