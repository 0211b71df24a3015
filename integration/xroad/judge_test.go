// SPDX-License-Identifier: Apache-2.0

// Package xroad_test has X-Road's own classes judge what Kontor makes:
// containers and the global configuration. It needs them at hand; see
// docs/interoperability.md.
package xroad_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kontor/integration/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// classPath names the variable with X-Road's class path.
const classPath = "KONTOR_XROAD_CLASSPATH"

// classes is that class path; without one the test is skipped.
func classes(t *testing.T) string {
	t.Helper()
	classes := os.Getenv(classPath)
	if classes == "" {
		t.Skip(classPath + " does not tell where X-Road's classes are")
	}
	return classes
}

// java is the Java machine.
func java() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java")
	}
	return "java"
}

// judge is a Java machine with X-Road's classes.
type judge struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

// newJudge starts the machine, or skips the test where there is none.
func newJudge(t *testing.T) *judge {
	t.Helper()
	cmd := exec.Command(java(), "-cp", classes(t), filepath.Join("testdata", "Judge.java"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // it ends with its questions
		if err := cmd.Wait(); err != nil {
			t.Errorf("the judge: %v (go test -v shows its words)", err)
		}
	})
	return &judge{t: t, in: in, out: bufio.NewReader(out)}
}

// ask returns whether X-Road agrees, and what it says.
func (j *judge) ask(question ...string) (yes bool, words []string) {
	j.t.Helper()
	if _, err := io.WriteString(j.in, strings.Join(question, "\t")+"\n"); err != nil {
		j.t.Fatal(err)
	}
	line, err := j.out.ReadString('\n')
	if err != nil {
		j.t.Fatal("the judge is silent: ", err)
	}
	words = strings.Split(strings.TrimSuffix(line, "\n"), "\t")
	return words[0] == "yes", words[1:]
}

// must demands that X-Road agrees.
func (j *judge) must(question ...string) []string {
	j.t.Helper()
	yes, words := j.ask(question...)
	if !yes {
		j.t.Errorf("X-Road refuses %q: %q", question, words)
	}
	return words
}

// refuses demands that X-Road disagrees for a reason that matches, in any case.
func (j *judge) refuses(reason string, question ...string) {
	j.t.Helper()
	if yes, words := j.ask(question...); yes || !regexp.MustCompile("(?i)"+reason).MatchString(strings.Join(words, " ")) {
		j.t.Errorf("X-Road says %q of %q, want %q", words, question, reason)
	}
}
