// SPDX-License-Identifier: Apache-2.0

//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kontor/registry"
	"kontor/registry/postgres"
	"kontor/registry/postgres/pgtest"
)

// A connection over a network is protected, or not made.
func TestConnectionIsProtected(t *testing.T) {
	t.Parallel()
	for dsn, refused := range map[string]bool{
		"host=db.example.org dbname=x":                                   true, // pgx would try TLS and go on without
		"host=db.example.org dbname=x sslmode=disable":                   true,
		"host=db.example.org dbname=x sslmode=require":                   true, // any certificate will do
		"host=192.0.2.1 dbname=x sslmode=allow":                          true,
		"host=127.0.0.1,db.example.org port=1,1 dbname=x sslmode=prefer": true,
		"host=127.0.0.1 port=1 dbname=x connect_timeout=1":               false,
		"host=/nowhere dbname=x":                                         false,
		"host=127.0.0.1 port=1 dbname=x sslmode=verify-full":             false,
	} {
		_, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if err == nil {
			t.Fatal("connected to nothing")
		}
		if got := strings.Contains(err.Error(), "not be protected"); got != refused {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	dsn := server.DSN()
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("not it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		cfg  postgres.Config
		want string
	}{
		{postgres.Config{DSN: dsn, PasswordFile: wrong}, "password authentication failed"},
		{postgres.Config{DSN: dsn, PasswordFile: wrong + "er"}, "password_file"},
		{postgres.Config{DSN: dsn + " dbname=other", PasswordFile: server.PasswordFile()}, "other"},
		{postgres.Config{DSN: "port=many"}, "port"},
	} {
		s, err := postgres.Open(t.Context(), bad.cfg)
		if err == nil || !strings.Contains(err.Error(), bad.want) || strings.Contains(err.Error(), "not it") {
			t.Errorf("%+v: %v, %v", bad.cfg, s, err)
		}
	}
	// A password that changes is read anew; the tables are there already.
	for range 2 {
		s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, PasswordFile: server.PasswordFile()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	open := func(dsn string) *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, PasswordFile: server.PasswordFile()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	dsn := server.DSN()
	writer, reader := open(dsn), open(dsn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	news, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- reader.Watch(ctx, func() { news <- struct{}{} }) }()
	<-news // it listens
	if err := writer.Append(nil, 1, [][]byte{[]byte("a")}, []byte("h")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-news:
	case err := <-ended:
		t.Fatal(err)
	}
	server.Kill()
	if err := <-ended; err == nil || ctx.Err() != nil {
		t.Errorf("the lost connection went unnoticed: %v", err)
	}
	if _, err := reader.Head(); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Error(err)
	}
	server.Run()
	if head, err := reader.Head(); err != nil || string(head) != "h" {
		t.Errorf("%q, %v", head, err)
	}
	if err := writer.Append([]byte("h"), 2, [][]byte{[]byte("b")}, []byte("h2")); err != nil {
		t.Error(err)
	}
}

// relay is a way to the database that breaks when a transaction is committed.
type relay struct {
	listener net.Listener
	target   string
	// what happens next: 0 nothing; 1 the commit does not arrive; 2 it arrives,
	// its answer does not; 3 as 2, and nothing gets through any more.
	next atomic.Int32
	dead atomic.Bool
}

func (r *relay) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		if r.dead.Load() {
			client.Close()
			continue
		}
		server, err := net.Dial("unix", r.target)
		if err != nil {
			client.Close()
			continue
		}
		go func() {
			io.Copy(client, server) //nolint:errcheck // ends when either side does
			client.Close()
		}()
		go r.forward(client, server)
	}
}

func (r *relay) forward(client, server net.Conn) {
	defer server.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if what := r.next.Load(); what != 0 && bytes.Contains(b[:n], []byte("commit\x00")) {
			r.next.Store(0)
			r.dead.Store(what == 3)
			client.Close()
			if what != 1 {
				server.Write(b[:n]) //nolint:errcheck // the test sees what came of it
			}
			return
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

// The connection breaks in the moment of a commit: Append finds out what became
// of it, and says so when it cannot.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	dsn := server.DSN()
	direct := strings.Fields(dsn)[0][len("host="):]
	dir, err := os.MkdirTemp("", "kontor-relay-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := &relay{listener: listener, target: filepath.Join(direct, ".s.PGSQL.5432")}
	go r.serve()
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: strings.Replace(dsn, direct, dir, 1), PasswordFile: server.PasswordFile()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.ResolveFor(300 * time.Millisecond)

	r.next.Store(2)
	if err := s.Append(nil, 1, [][]byte{[]byte("a")}, []byte("h1")); err != nil {
		t.Errorf("stored, but %v", err)
	}
	r.next.Store(1)
	if err := s.Append([]byte("h1"), 2, [][]byte{[]byte("b")}, []byte("h2")); err == nil || errors.Is(err, registry.ErrUncertain) || !strings.Contains(err.Error(), "nothing was stored") {
		t.Errorf("not stored: %v", err)
	}
	if err := s.Append([]byte("h1"), 2, [][]byte{[]byte("c")}, []byte("h3")); err != nil {
		t.Error(err)
	}
	r.next.Store(3)
	if err := s.Append([]byte("h3"), 3, [][]byte{[]byte("d")}, []byte("h4")); !errors.Is(err, registry.ErrUncertain) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := s.Head(); err == nil {
		t.Error("a head without a connection")
	}
	r.dead.Store(false)
	if head, err := s.Head(); err != nil || string(head) != "h4" {
		t.Errorf("head %q, %v", head, err)
	}
	if err := s.Append([]byte("h3"), 3, [][]byte{[]byte("d")}, []byte("h4")); !errors.Is(err, registry.ErrMoved) {
		t.Errorf("a second time: %v", err)
	}
}
