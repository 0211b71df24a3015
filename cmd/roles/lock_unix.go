// SPDX-License-Identifier: Apache-2.0

//go:build unix

package roles

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes an exclusive lock between processes, which lasts until f is
// closed; false: somebody else has it.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}
