// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Package pgtest starts PostgreSQL servers of their own for tests.
package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	port     = 5432 // names the socket; nothing listens on the network
	account  = "kontor"
	password = "correct horse"
	patience = time.Minute // for a server on a busy machine
)

// Server is a PostgreSQL server that listens on a socket in a directory of the
// test, asks for a password, and ends with the test.
type Server struct {
	t       testing.TB
	bin     string
	dir     string
	owner   *syscall.Credential // nil: who runs the test
	process *exec.Cmd
	schemas atomic.Int32
}

// Start starts a server, or skips the test where PostgreSQL is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, bin: binaries()}
	if s.bin == "" {
		t.Skip("PostgreSQL's initdb was not found (Debian package postgresql): nothing is tested against a real database")
	}
	dir, err := os.MkdirTemp("", "kontor-pg-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(func() {
		s.end(syscall.SIGQUIT)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if os.Geteuid() == 0 { // the server refuses to run as root
		if s.owner, err = ordinary(); err != nil {
			t.Skip(err)
		}
		if err := os.Chown(dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.PasswordFile(), []byte(password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.must(s.command("initdb", "-D", s.data(), "-U", account, "-A", "scram-sha-256", "--pwfile", s.PasswordFile(), "-E", "UTF8", "--locale=C", "--no-sync"))
	s.Run()
	return s
}

func binaries() string {
	if file, err := exec.LookPath("initdb"); err == nil {
		if file, err = filepath.EvalSymlinks(file); err == nil {
			return filepath.Dir(file)
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

func ordinary() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// PasswordFile holds the password of the account in DSN.
func (s *Server) PasswordFile() string { return filepath.Join(s.dir, "password") }

// DSN returns how to connect, with a schema that no other call returns.
func (s *Server) DSN() string {
	s.t.Helper()
	schema := fmt.Sprint("s", s.schemas.Add(1))
	s.SQL("CREATE SCHEMA " + schema)
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres search_path=%s", s.dir, port, account, schema)
}

// SQL runs statements and returns what psql prints, without decoration.
func (s *Server) SQL(statements string) string {
	s.t.Helper()
	return s.must(s.psql(statements))
}

func (s *Server) psql(statements string) *exec.Cmd {
	cmd := s.command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-p", strconv.Itoa(port), "-U", account, "-d", "postgres", "-c", statements)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	return cmd
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	return cmd
}

func (s *Server) must(cmd *exec.Cmd) string {
	s.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Run starts the server again after Kill, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		var said bytes.Buffer
		cmd := s.command("postgres", "-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(port), "-c", "listen_addresses=", "-c", "max_connections=40")
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			if s.psql("SELECT 1").Run() == nil {
				s.process = cmd
				return
			}
			select {
			case err := <-ended: // what was killed may still be ending
				if time.Now().After(deadline) {
					s.t.Fatalf("PostgreSQL does not start: %v\n%s", err, said.Bytes())
				}
			case <-time.After(50 * time.Millisecond):
				if time.Now().Before(deadline) {
					continue
				}
				cmd.Process.Kill() //nolint:errcheck // the test fails anyway
				s.t.Fatalf("PostgreSQL does not answer:\n%s", said.Bytes())
			}
			break
		}
	}
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.process == nil {
		return
	}
	s.process.Process.Signal(sig) //nolint:errcheck // it may have ended
	for s.process.Process.Signal(syscall.Signal(0)) == nil {
		time.Sleep(5 * time.Millisecond)
	}
	s.process = nil
}
