// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// tryLockRecord takes the lock by which a database keeps other processes out;
// false: it is taken, be it by this process.
func tryLockRecord(f *os.File) (bool, error) {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: 0})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}
