// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgram takes the code and the constants of the program out of this
// process's memory. The system keeps them in its cache of files and maps them
// again, some at a time, where they are used; so little more than what is in
// use stays. Of the hundreds of packages most do something at the start only.
func dropProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	mappings, err := unwritten(f, program)
	for _, m := range mappings {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			err = errors.Join(err, fmt.Errorf("madvise: %w", errno))
		}
	}
	return err
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unwritten finds in /proc/PID/smaps (proc_pid_smaps(5)) the mappings of a file
// that cannot be written, and in which nothing is other than in the file, as a
// debugger's breakpoint is.
func unwritten(smaps io.Reader, file string) ([]mapping, error) {
	var all []mapping
	var m mapping
	var ours bool
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		var next mapping
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &next.from, &next.to, &access); n == 3 { // else a line about m
			m, ours = next, (access == "r-xp" || access == "r--p") && strings.HasSuffix(line, " "+file)
		}
		if private, ok := strings.CutPrefix(line, "Anonymous:"); ok && ours && strings.TrimSpace(private) == "0 kB" {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}
