// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package processes_test drives the built binaries as their users do: real
// processes, real signals, and tools that others wrote as judges.
package processes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen. It is no measure
// of speed: these tests also run on machines that are busy with others.
const patience = 2 * time.Minute

// lockFile queues test runs of one machine: addresses are fixed.
var lockFile = filepath.Join(os.TempDir(), "kontor-processes.lock")

var built struct {
	once sync.Once
	dir  string
	err  error
	lock *os.File // held until the process ends
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// binary returns the path of a command, built for this run unless KONTOR_BIN
// names a folder that holds both. The first call waits until no other run of
// these tests uses the machine.
func binary(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.lock, built.err = acquire(t); built.err == nil && os.Getenv("KONTOR_BIN") == "" {
			built.dir, built.err = build()
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	if dir := os.Getenv("KONTOR_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(built.dir, name)
}

func acquire(t testing.TB) (*os.File, error) {
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		t.Logf("another run holds %s; waiting", lockFile)
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// build compiles as the Makefile does, so that the two share a build cache.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-bin-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./cmd/kontor", "./cmd/kontor-verify")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
}

// result is what a command left behind.
type result struct {
	status   int
	out, err string
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d\nstandard output:\n%s\nstandard error:\n%s", r.status, r.out, r.err)
}

// command runs a program to its end.
func command(t testing.TB, name string, args ...string) result {
	t.Helper()
	return commandIn(t, "", "", name, args...)
}

// commandIn runs a program with a working folder and standard input.
func commandIn(t testing.TB, dir, stdin, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s did not end within %s\n%s%s", filepath.Base(name), strings.Join(args, " "), patience, out.String(), errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// kontor runs the command under test and demands an exit status.
func kontor(t testing.TB, want int, args ...string) result {
	t.Helper()
	return demand(t, want, binary(t, "kontor"), args...)
}

func demand(t testing.TB, want int, name string, args ...string) result {
	t.Helper()
	r := command(t, name, args...)
	if r.status != want {
		t.Fatalf("%s %s: want exit status %d, got %s", filepath.Base(name), strings.Join(args, " "), want, r)
	}
	return r
}

// tool returns the path of a program that others wrote, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed; .ci/run installs it", name)
	}
	return path
}

// stranger runs a program that others wrote and demands its consent.
func stranger(t testing.TB, name string, args ...string) string {
	t.Helper()
	r := demand(t, 0, tool(t, name), args...)
	return r.out + r.err
}

// eventually waits until a condition holds; it tells the last reason why not.
func eventually(t testing.TB, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// ready asks a role whether it can do its job.
func ready(metrics string) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(strings.TrimSuffix(metrics, "/metrics") + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body) // only a reason to show
		return fmt.Errorf("status %d: %s", resp.StatusCode, b.String())
	}
	return nil
}

// needAddresses skips the test if something else listens where the test must.
func needAddresses(t testing.TB, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		deadline := time.Now().Add(time.Minute)
		for {
			l, err := net.Listen("tcp", a)
			if err == nil {
				l.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Skipf("%s is not free (%v); stop what listens there, such as a running sandbox", a, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// processesOf lists the processes whose command line names a folder.
func processesOf(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(dir)) { // the others ended meanwhile
			found = append(found, filepath.Base(filepath.Dir(f))+" "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// nobodyLeft demands that no process of a folder is left.
func nobodyLeft(t testing.TB, dir string) {
	t.Helper()
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes were left behind:\n%s", strings.Join(left, "\n"))
	}
}

// tail returns the end of a file, for failure reports.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	const most = 6000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}
