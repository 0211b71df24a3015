// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package transcript_test does what the operator's guide says, and demands that
// what it shows is what happens.
package transcript_test

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	guide = "../../docs/operators-guide.md"
	// patience bounds every wait; it is no measure of speed.
	patience = 2 * time.Minute
)

// The guide waits as long as default intervals demand. Here both are shorter,
// the intervals more so, for machines that are busy.
const (
	interval = "3s"
	preamble = `sleep() { case $1 in *.*) command sleep "$1";; *) command sleep $(( ($1 + 11) / 12 ));; esac; }
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
`
)

// binaries returns a folder with the commands, built for this run unless
// KONTOR_BIN names one.
func binaries(t *testing.T) string {
	if dir := os.Getenv("KONTOR_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./cmd/kontor", "./cmd/kontor-verify")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// shell is a running bash that is given one command after the other.
type shell struct {
	in    io.WriteCloser
	lines chan string
	mark  string // ends the output of a command
}

func start(t *testing.T, bin, dir string) *shell {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	cmd := exec.Command("bash", "-s")
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KONTOR_") }),
		"PATH="+bin+":"+os.Getenv("PATH"), "KONTOR_GLOBALCONF_INTERVAL="+interval, "KONTOR_MESSAGE_LOG_STAMP_INTERVAL="+interval, "KONTOR_PUBLISH_INTERVAL="+interval)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shell{in: in, lines: make(chan string), mark: "mark-" + rand.Text()}
	go func() {
		defer close(s.lines)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				s.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		in.Close() // its trap ends the servers
		timer := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
		for range s.lines {
		}
		_ = cmd.Wait()                                      // its status is that of the last command
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nobody is left, as a rule
	})
	if _, err := io.WriteString(in, preamble); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a command and returns what it printed, and its status.
func (s *shell) run(command string) (output string, status int, err error) {
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null 2>&1; printf '\\n%%s %%d\\n' %s $?\n", command, s.mark); err != nil {
		return "", 0, err
	}
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return output, 0, errors.New("the shell ended")
			}
			if rest, ok := strings.CutPrefix(line, s.mark+" "); ok {
				status, err = strconv.Atoi(strings.TrimSpace(rest))
				return strings.TrimSuffix(output, "\n"), status, err
			}
			output += strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r") + "\n" // HTTP ends lines with both
		case <-timeout:
			return output, 0, fmt.Errorf("it did not end within %s", patience)
		}
	}
}

// attempt runs a step once, and tells what it printed and what is not as shown.
func (s *shell) attempt(st step, n names) (output string, err error) {
	command, err := n.fill(st.text)
	if err != nil {
		return "", err
	}
	output, status, err := s.run(command)
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	switch {
	case err != nil:
		return output, err
	case status != st.status:
		return output, fmt.Errorf("exit status %d instead of %d", status, st.status)
	case st.checked:
		return output, n.match(st.shown, output)
	}
	return output, nil
}

// TestOperatorsGuide does what the guide says, from a blank folder on.
func TestOperatorsGuide(t *testing.T) {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "kontor-transcript.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // addresses are fixed
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, n := start(t, binaries(t), dir), names{}
	for _, st := range steps(t, guide) {
		if st.file != "" {
			if err := os.WriteFile(filepath.Join(dir, st.file), []byte(st.text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		begun := time.Now()
		output, err := s.attempt(st, n)
		for err != nil && st.wait && time.Since(begun) < patience {
			time.Sleep(200 * time.Millisecond)
			output, err = s.attempt(st, n)
		}
		t.Logf("after %s:\n$ %s\n%s", time.Since(begun).Round(time.Millisecond), st.text, shorten(output))
		if err != nil {
			logs(t, dir)
			t.Fatalf("%s:%d: %v", guide, st.line, err)
		}
	}
}

// shorten leaves out the middle of what is long.
func shorten(output string) string {
	const most = 4000
	if len(output) <= 2*most {
		return output
	}
	return output[:most] + "\n…\n" + output[len(output)-most:]
}

// logs shows the ends of the servers' logs.
func logs(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is good
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		t.Logf("--- %s\n%s", filepath.Base(f), b[max(0, len(b)-2000):])
	}
}

// TestReference checks that the commands of the other blocks exist, with the
// flags that they are given.
func TestReference(t *testing.T) {
	bin := binaries(t)
	help := map[string]string{}
	b, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	words, flags := regexp.MustCompile(`^kontor((?: [a-z][a-z-]*)+)`), regexp.MustCompile(` (--[a-z-]+)`)
	checked := 0
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			m := words.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			checked++
			args := strings.Fields(m[1])
			for ; len(args) > 0; args = args[:len(args)-1] { // the last words may be arguments
				name := strings.Join(args, " ")
				if help[name] == "" {
					out, err := exec.Command(filepath.Join(bin, "kontor"), append(args, "--help")...).CombinedOutput()
					if err != nil {
						t.Fatalf("kontor %s: %v\n%s", name, err, out)
					}
					help[name] = string(out)
				}
				if strings.Contains(help[name], "\n  kontor "+name) {
					break
				}
			}
			name := strings.Join(args, " ")
			if len(args) == 0 || strings.Contains(help[name], "[command]") {
				t.Errorf("there is no command for %q", line)
			}
			for _, f := range flags.FindAllStringSubmatch(line, -1) {
				if !regexp.MustCompile(` ` + f[1] + `\b`).MatchString(help[name]) {
					t.Errorf("kontor %s has no flag %s", name, f[1])
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d commands were found", checked)
	}
}
