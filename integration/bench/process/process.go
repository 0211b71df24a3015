// SPDX-License-Identifier: Apache-2.0

// Package process runs the programs that take part in a measurement and reads
// from the kernel what they use.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Spec is a program to run.
type Spec struct {
	Name  string   // for messages
	Args  []string // program and arguments
	Env   []string // added to the environment
	Log   string   // file that takes its output
	NetNS string   // name of the network namespace that it runs in; empty: ours
}

// Process is a program that runs.
type Process struct {
	Spec
	PID  int
	done chan struct{} // closed when it has ended
	err  error         // how; read it after done
}

// Start starts a program. It ends with us, however we end.
func Start(s Spec) (*Process, error) {
	out, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	args := s.Args
	if s.NetNS != "" {
		args = append([]string{"ip", "netns", "exec", s.NetNS}, args...) // it execs: the process is the program
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p := &Process{Spec: s, PID: cmd.Process.Pid, done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	return p, nil
}

// Err is nil while the program runs; afterwards it tells the end of its output.
func (p *Process) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	b, _ := os.ReadFile(p.Log) // only to help
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return fmt.Errorf("%s ended (%v): %s", p.Name, p.err, bytes.TrimSpace(b))
}

// stopPatience is how long a program may take to end in order.
const stopPatience = 40 * time.Second

// Stop ends a program in order, and by force if it does not.
func (p *Process) Stop() error {
	if p.signal(syscall.SIGTERM) != nil {
		return nil // it has ended
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
	}
	err := fmt.Errorf("%s did not stop within %s and was killed", p.Name, stopPatience)
	if e := p.signal(syscall.SIGKILL); e == nil {
		<-p.done
	}
	return err
}

func (p *Process) signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(p.PID, s)
	}
}

// StopAll stops programs, the last first.
func StopAll(all []*Process) error {
	var failed []error
	for i := len(all) - 1; i >= 0; i-- {
		failed = append(failed, all[i].Stop())
	}
	return errors.Join(failed...)
}

// Usage is what programs use.
type Usage struct {
	CPU  time.Duration // used since their start
	RSS  int64         // resident memory, bytes
	Peak int64         // most of it since ResetPeak
}

// Usage reads what the program and its children use.
func (p *Process) Usage() (Usage, error) {
	var sum Usage
	pids, err := p.family()
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		u, err := usageOf(pid)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", p.Name, errors.Join(err, p.Err()))
		}
		sum.CPU, sum.RSS, sum.Peak = sum.CPU+u.CPU, sum.RSS+u.RSS, sum.Peak+u.Peak
	}
	return sum, nil
}

// family returns the process and its children.
func (p *Process) family() ([]int, error) {
	pids := []int{p.PID}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.PID))
	if errors.Is(err, fs.ErrNotExist) && p.Err() == nil { // a kernel that does not tell
		return pids, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, errors.Join(err, p.Err()))
	}
	for _, text := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func usageOf(pid int) (u Usage, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// proc(5): behind the name come 11 fields, then utime and stime in ticks.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(n) * time.Second / userHZ
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &u.RSS, "VmHWM": &u.Peak}[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			return u, err
		}
		*to = kib << 10
	}
	return u, nil
}

// userHZ is the unit of CPU times in /proc on every Linux platform of Go.
const userHZ = 100

// ResetPeak makes the present memory the peak.
func (p *Process) ResetPeak() error {
	pids, err := p.family()
	for _, pid := range pids {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
	}
	return err
}

// Free tells whether all TCP addresses are free to listen on.
func Free(addresses ...string) error {
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("%w: stop what listens there, most likely another run of this benchmark, and try again", err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
