// SPDX-License-Identifier: Apache-2.0

//go:build unix

package pki

import (
	"fmt"
	"os"
	"syscall"
)

// checkMode refuses what group or others may touch, with the remedy.
func checkMode(name string, dir bool) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		remedy := "600"
		if dir {
			remedy = "700"
		}
		return fmt.Errorf("%w: %s has mode %04o: run chmod %s %s", ErrPermissions, name, mode, remedy, name)
	}
	if info.IsDir() != dir {
		return fmt.Errorf("%w: %s is of the wrong kind", ErrDamaged, name)
	}
	return nil
}

// lock takes an exclusive lock between processes until the returned function is
// called. The file stays: removing it would let two processes lock two files.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
