// SPDX-License-Identifier: Apache-2.0

package opmonitor_test

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"kontor/gateway/opmonitor"
)

// Writes that fail, as on a full disk, leave no files behind. The limit is that
// of a process, so the test is one of its own.
func TestFailedWritesLeaveNoFiles(t *testing.T) {
	const inside = "KONTOR_TEST_FILE_LIMIT"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFailedWritesLeaveNoFiles$")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	dir := t.TempDir()
	store, _ := open(t, opmonitor.Config{Dir: dir})
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = 20 // enough for the head of a segment
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		store.Add(&opmonitor.Record{ServerType: opmonitor.Producer, Service: service(t, "T/GOV/2/p/a")})
		store.Flush()
	}
	if s := store.Stats(); s.Lost != 3 || s.Stored != 0 {
		t.Errorf("%+v, want three records lost", s)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
}
