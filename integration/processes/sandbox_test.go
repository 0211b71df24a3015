// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sandboxAddresses are where the sandbox listens, one per role.
var sandboxAddresses = []string{"127.0.0.10:8080", "127.0.0.11:8080", "127.0.0.12:8080", "127.0.0.13:8888", "127.0.0.14:8000"}

const (
	portal     = "SANDBOX/GOV/1001/portal"
	outsider   = "SANDBOX/GOV/1001/stranger"
	population = "SANDBOX/GOV/2002/population"
	persons    = "SANDBOX/GOV/2002/population/persons"
	messages   = "SANDBOX/GOV/1001/portal/messages"
)

// sandbox is a running "kontor sandbox".
type sandbox struct {
	*network
	dir, output string
	cmd         *exec.Cmd
	ended       chan struct{}
}

// startSandbox starts a sandbox and waits until it is ready. The test stops it.
func startSandbox(t testing.TB, dir string, args ...string) *sandbox {
	t.Helper()
	s := launchSandbox(t, dir, args...)
	eventually(t, "sandbox", func() (err error) {
		select {
		case <-s.ended:
			t.Fatalf("the sandbox ended: %v\n%s", s.cmd.ProcessState, tail(s.output))
		default:
		}
		s.network, err = readNetwork(filepath.Join(dir, "sandbox.json"))
		return err
	})
	return s
}

// launchSandbox starts a sandbox.
func launchSandbox(t testing.TB, dir string, args ...string) *sandbox {
	t.Helper()
	program := binary(t, "kontor") // first: it waits for other runs
	needAddresses(t, sandboxAddresses...)
	s := &sandbox{dir: dir, output: dir + ".out", ended: make(chan struct{})}
	out, err := os.OpenFile(s.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command(program, append([]string{"sandbox", "--dir", dir}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // the state tells
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.end(t)
		if t.Failed() {
			t.Logf("sandbox:\n%s", tail(s.output))
			logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
			for _, l := range logs {
				t.Logf("%s:\n%s", l, tail(l))
			}
		}
	})
	return s
}

// end stops the sandbox, the hard way if need be.
func (s *sandbox) end(t testing.TB) {
	t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Errorf("the sandbox did not stop within %s", patience)
		_ = s.cmd.Process.Kill() // the same
		<-s.ended
	}
}

// stop stops the sandbox as an operator does and demands a clean end.
func (s *sandbox) stop(t testing.TB) {
	t.Helper()
	s.end(t)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the sandbox ended with %v", s.cmd.ProcessState)
	}
	nobodyLeft(t, s.dir)
}

// refresh reads sandbox.json again: processes may be others now.
func (s *sandbox) refresh() error {
	n, err := readNetwork(filepath.Join(s.dir, "sandbox.json"))
	if err == nil {
		s.network = n
	}
	return err
}

// check runs "kontor sandbox --check" and demands success.
func check(t testing.TB, dir string, args ...string) []string {
	t.Helper()
	program := binary(t, "kontor")
	needAddresses(t, sandboxAddresses...)
	began := time.Now()
	r := demand(t, 0, program, append([]string{"sandbox", "--check", "--dir", dir}, args...)...)
	t.Logf("sandbox --check %s took %s\n%s", strings.Join(args, " "), time.Since(began).Round(time.Millisecond), r.out)
	nobodyLeft(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "evidence", "*", "*.asice"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSandboxCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	first := check(t, dir)
	if len(first) != 20 { // five exchanges, two directions, two gateways
		t.Errorf("%d containers, want 20: %q", len(first), first)
	}
	anchor := read(t, filepath.Join(dir, "anchor.xml"))
	second := check(t, dir, "--processes")
	if len(second) != 40 {
		t.Errorf("%d containers after a second check, want 40: %q", len(second), second)
	}
	if string(anchor) != string(read(t, filepath.Join(dir, "anchor.xml"))) {
		t.Error("the second start made another ecosystem")
	}
	n, err := readNetwork(filepath.Join(dir, "sandbox.json"))
	if err != nil {
		t.Fatal(err)
	}
	n.verify(t, 0, 0, second...)
	n.verify(t, 1, 0, first...)
}

func TestSandboxInOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir)
	pid := s.cmd.Process.Pid
	if s.Registry.PID != pid || s.Trust.PID != pid || s.Gateways[0].PID != pid || s.Gateways[1].PID != pid {
		t.Errorf("sandbox.json names other processes than %d", pid)
	}
	s.succeed(t, request{0, "GET", portal, persons, "/38001010001", nil})
	s.stop(t)
}

func TestSandboxProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir, "--processes")
	pids := []int{s.cmd.Process.Pid, s.Registry.PID, s.Trust.PID, s.Gateways[0].PID, s.Gateways[1].PID}
	slices.Sort(pids)
	if len(slices.Compact(pids)) != 5 {
		t.Errorf("roles share processes: %v", pids)
	}
	for _, address := range []string{s.Registry.Metrics, s.Trust.Metrics, s.Gateways[0].Metrics, s.Gateways[1].Metrics} {
		if err := ready(address); err != nil {
			t.Errorf("sandbox.json came before %s was ready: %v", address, err)
		}
	}

	t.Run("second in the same folder", func(t *testing.T) {
		r := kontor(t, 1, "sandbox", "--check", "--dir", dir)
		if !strings.Contains(r.err, "another sandbox runs in "+dir) || !strings.Contains(r.err, "--dir") {
			t.Error(r)
		}
	})
	t.Run("second in another folder", func(t *testing.T) {
		for _, args := range [][]string{nil, {"--processes"}} {
			r := kontor(t, 1, append([]string{"sandbox", "--check", "--dir", filepath.Join(t.TempDir(), "other")}, args...)...)
			if !strings.Contains(r.err, "127.0.0.1") || !strings.Contains(r.err, "in use") || !strings.Contains(r.err, "stop") {
				t.Error(r)
			}
		}
	})
	// Neither attempt may have hurt the one that runs.
	s.succeed(t, request{0, "GET", portal, persons, "/38001010001", nil})

	t.Run("each role comes back", func(t *testing.T) {
		for _, r := range []struct {
			name    string
			pid     func() int
			metrics string
		}{
			{"registry", func() int { return s.Registry.PID }, s.Registry.Metrics},
			{"trust", func() int { return s.Trust.PID }, s.Trust.Metrics},
			{"gateway-1", func() int { return s.Gateways[0].PID }, s.Gateways[0].Metrics},
		} {
			before := r.pid()
			if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, r.name+" after kill -9", func() error {
				if err := s.refresh(); err != nil {
					return err
				}
				if r.pid() == before {
					return fmt.Errorf("sandbox.json still names process %d", before)
				}
				return ready(r.metrics)
			})
		}
		s.succeed(t, request{0, "GET", portal, persons, "/38001010001", nil})
	})
	s.stop(t)
}

// TestSandboxKilled ends the sandbox itself without a warning: its roles must
// not outlive it, and what it made must be of use afterwards.
func TestSandboxKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir, "--processes")
	resp := s.succeed(t, request{0, "GET", portal, persons, "", nil})
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	eventually(t, "end of the roles", func() error {
		if left := processesOf(t, dir); len(left) > 0 {
			return fmt.Errorf("%q", left)
		}
		return nil
	})
	s = startSandbox(t, dir)
	files := s.bothSides(t, t.TempDir(), request{client: portal, service: persons}, resp.messageID)
	s.verify(t, 0, 0, files...)
	s.stop(t)
}

// TestSandboxInterrupted stops a sandbox at moments when it is not ready yet.
func TestSandboxInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	for _, after := range []time.Duration{10, 100, 400, 900} {
		s := launchSandbox(t, dir, "--processes")
		time.Sleep(after * time.Millisecond) // a moment of its start, whichever
		s.end(t)
		nobodyLeft(t, dir)
	}
	check(t, dir)
}

func TestSandboxForeignFolder(t *testing.T) {
	binary(t, "kontor")
	needAddresses(t, sandboxAddresses...)
	dir := t.TempDir()
	mine := write(t, filepath.Join(dir, "thesis.txt"), []byte("years of work"))
	r := kontor(t, 1, "sandbox", "--check", "--dir", dir)
	if !strings.Contains(r.err, "thesis.txt") || !strings.Contains(r.err, "--dir") {
		t.Error(r)
	}
	if string(read(t, mine)) != "years of work" {
		t.Error("the file is gone")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 2 { // the file and the lock
		t.Errorf("the folder was changed: %v, %v", left, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"sandbox", "--no-such-flag"}, {"sandbox", "surplus"}, {"no-such-command"}, {"gateway", "no-such-command"},
		{"gateway", "run", "surplus"}, {"gateway", "import"}, {"trust", "issue"}, {"trust", "init"}, {"trust", "revoke", "--reason", "x", "1"},
		{"gateway", "init", "--algorithm"}, {"log", "find", "surplus"},
	} {
		r := kontor(t, 2, args...)
		if r.err == "" || r.out != "" {
			t.Errorf("kontor %s: %s", strings.Join(args, " "), r)
		}
	}
}
