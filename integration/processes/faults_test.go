// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kontor/registry/id"
)

// TestOperatorsPath sets an ecosystem up by the commands, with RSA keys, shows
// its evidence to strangers, and then takes one role after the other away.
func TestOperatorsPath(t *testing.T) {
	e := newEcosystem(t)
	small := request{0, "POST", caller, echo, "", []byte("hello")}
	large := request{0, "POST", caller, echo, "", bytes.Repeat([]byte("0123456789abcdef"), 50_000)}
	plain := request{0, "GET", caller, echo, "/path?query=1", nil}
	works := func(t testing.TB) *response {
		t.Helper()
		for _, r := range []request{large, plain} {
			e.succeed(t, r)
		}
		resp := e.succeed(t, small)
		if string(resp.body) != "POST 5:hello" {
			t.Errorf("the answer is %q", resp.body)
		}
		return resp
	}
	valid := func(t testing.TB, messageID string) []string {
		t.Helper()
		files := e.bothSides(t, t.TempDir(), small, messageID)
		e.verify(t, 0, 0, files...)
		e.verify(t, 1, 0, files...)
		return files
	}

	containers := valid(t, works(t).messageID)
	containers = append(containers, e.bothSides(t, t.TempDir(), plain, e.succeed(t, plain).messageID)...)
	t.Run("strangers", func(t *testing.T) {
		for _, c := range containers {
			if b := unzip(t, read(t, c))["META-INF/signatures.xml"]; !bytes.Contains(b, []byte("rsa-sha512")) {
				t.Errorf("%s is not signed with RSA", c)
			}
		}
		strangersAccept(t, e.network, containers)
	})
	t.Run("commands of the log", func(t *testing.T) {
		r := kontor(t, 0, "log", "find", "--config", e.Gateways[1].Config, "--client", caller, "--service", echo, "--output", "json")
		if strings.Count(r.out, `"seq"`) < 8 {
			t.Errorf("two records of each of four exchanges are wanted: %s", r)
		}
		out := filepath.Join(t.TempDir(), "evidence.zip")
		kontor(t, 0, "log", "export", "--config", e.Gateways[1].Config, "--force", "--out", out)
		stranger(t, "unzip", "-t", out)
		e.verify(t, 1, 0, out)
	})

	t.Run("provider's gateway hangs", func(t *testing.T) {
		e.signal(t, "gateway-2", syscall.SIGSTOP)
		for _, r := range []request{small, large} {
			e.refused(t, r, "server.clientproxy.io_error", "server.clientproxy.network_error")
		}
		e.signal(t, "gateway-2", syscall.SIGCONT)
		eventually(t, "exchange after the pause", func() error {
			if resp := e.call(t, small); resp.fault != "" {
				return errors.New(resp.fault)
			}
			return nil
		})
		valid(t, works(t).messageID)
	})
	t.Run("consumer's gateway hangs", func(t *testing.T) {
		e.signal(t, "gateway-1", syscall.SIGSTOP)
		answered := make(chan *response)
		go func() {
			resp, err := e.do(t.Context(), http.DefaultClient, small)
			if err != nil {
				t.Error(err)
			}
			answered <- resp
		}()
		select {
		case resp := <-answered:
			t.Errorf("a stopped process answered: %+v", resp)
		default:
		}
		e.signal(t, "gateway-1", syscall.SIGCONT)
		if resp := <-answered; resp != nil && resp.fault != "" {
			t.Errorf("fault %s: %s", resp.fault, resp.body)
		}
		works(t)
	})
	t.Run("provider's gateway is down", func(t *testing.T) {
		e.stop(t, "gateway-2")
		for _, r := range []request{small, large} {
			e.refused(t, r, "server.clientproxy.network_error")
		}
		e.start(t, "gateway-2")
		works(t)
	})
	t.Run("registry is down", func(t *testing.T) {
		e.stop(t, "registry")
		works(t)
		e.restart(t, "gateway-1") // what the disk holds is enough
		e.restart(t, "gateway-2")
		valid(t, works(t).messageID)
		e.start(t, "registry")
		works(t)
	})
	t.Run("registry hangs", func(t *testing.T) {
		e.signal(t, "registry", syscall.SIGSTOP)
		works(t)
		e.restart(t, "gateway-1")
		works(t)
		e.signal(t, "registry", syscall.SIGCONT)
	})
	t.Run("trust services are down", func(t *testing.T) {
		e.stop(t, "trust")
		e.restart(t, "gateway-1") // OCSP responses are kept, too
		e.restart(t, "gateway-2")
		messageID := works(t).messageID
		for i, party := range []string{caller, callee} {
			holder, err := id.ParseClient(party)
			if err != nil {
				t.Fatal(err)
			}
			address := e.asicURL(i, holder, messageID)
			if status, b, err := get(address); err != nil || status != http.StatusInternalServerError || !strings.Contains(string(b), "has not been timestamped yet") {
				t.Errorf("gateway-%d: status %d, %s, %v", i+1, status, b, err)
			}
			if status, b, err := get(address + "&force"); err != nil || status != http.StatusInternalServerError || !strings.Contains(string(b), "timestamp") {
				t.Errorf("gateway-%d, forced: status %d, %s, %v", i+1, status, b, err)
			}
			kontor(t, 1, "log", "export", "--config", e.Gateways[i].Config, "--id", messageID, "--out", filepath.Join(t.TempDir(), "x.zip"))
		}
		e.start(t, "trust")
		valid(t, messageID)
	})
	t.Run("everything is killed", func(t *testing.T) {
		messageID := works(t).messageID
		for name := range e.roles {
			e.signal(t, name, syscall.SIGKILL)
			<-e.roles[name].ended
		}
		for _, name := range []string{"gateway-2", "gateway-1", "registry", "trust"} { // in no sensible order
			e.launch(t, name)
		}
		for name, p := range e.roles {
			eventually(t, name, func() error { return ready(p.metrics) })
		}
		valid(t, messageID)
		valid(t, works(t).messageID)
	})
	for i := range e.Gateways {
		t.Run(fmt.Sprintf("disk of gateway-%d is full", i+1), func(t *testing.T) {
			e.fullDisk(t, i, small, large)
			valid(t, works(t).messageID)
		})
	}
	e.checkStopped(t)
	e.stop(t, "registry")
	e.stop(t, "trust")
	nobodyLeft(t, e.dir)
}

// fullDisk moves the message log of a gateway to a small disk and fills that.
func (e *ecosystem) fullDisk(t *testing.T, i int, small, large request) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	g, name := e.Gateways[i], gatewayRole(i)
	origin := []string{"server.clientproxy.", "server.serverproxy."}[i]
	e.stop(t, name)
	disk, old := g.messageLog(), g.messageLog()+".old"
	if err := os.Rename(disk, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := syscall.Unmount(disk, 0); err != nil {
				t.Errorf("unmount: %v", err)
				_ = syscall.Unmount(disk, 2 /* MNT_DETACH */) // the test has failed already
			}
		}
	}
	t.Cleanup(func() {
		if mounted && e.roles[name].cmd != nil {
			_ = e.roles[name].cmd.Process.Kill() // the test failed half-way
			<-e.roles[name].ended
		}
		unmount()
	})
	if err := os.CopyFS(disk, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	e.start(t, name)
	before := e.succeed(t, small).messageID

	// Up to the reserve: refused, and well again as soon as there is space.
	filler := filepath.Join(disk, "filler")
	fill(t, filler, 6<<20)
	eventually(t, "refusal", func() error { // it does not look at the disk for every message
		if resp := e.call(t, small); resp.fault == "" {
			return errors.New("answered")
		}
		return nil
	})
	for _, r := range []request{small, large} {
		resp := e.refused(t, r, origin+"logging_failed")
		if !strings.Contains(strings.ToLower(string(resp.body)), "disk") {
			t.Errorf("the fault does not speak of the disk: %s", resp.body)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exchange with space", func() error {
		if resp := e.call(t, small); resp.fault != "" {
			return fmt.Errorf("%s: %s", resp.fault, resp.body)
		}
		return nil
	})
	e.bothSides(t, t.TempDir(), small, before)

	// Without a reserve, until writes fail: nothing that was there is harmed.
	config := read(t, g.Config)
	write(t, g.Config, bytes.Replace(config, []byte("disk_reserve: 8MiB"), []byte("disk_reserve: 0"), 1))
	e.restart(t, name)
	e.succeed(t, small)
	fill(t, filler, 0)
	e.refused(t, large, origin+"logging_failed") // no space for its file
	// Bodies in records: what is preallocated lasts for some of them.
	inline := request{0, "POST", caller, echo, "", bytes.Repeat([]byte("0123456789abcdef"), 3_700)}
	client := &http.Client{Timeout: hang}
	var messages []string
	for full := false; !full; {
		resp, err := e.do(t.Context(), client, inline)
		switch {
		case err != nil && i == 0: // its log has failed, and it has ended
			t.Logf("without reserve: %d exchanges, then %v", len(messages), err)
			full = true
		case err != nil:
			t.Fatal(err)
		case resp.fault != "":
			t.Logf("without reserve: %d exchanges, then %s: %.300s", len(messages), resp.fault, resp.body)
			if err := clearFault(resp); err != nil {
				t.Error(err)
			}
			full = true
		default:
			messages = append(messages, resp.messageID)
		}
		if len(messages) > 2000 {
			t.Fatal("a full disk takes everything")
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	// A log whose disk has failed it ends its gateway; a service manager starts
	// it again.
	p := e.roles[name]
	eventually(t, "exchange after a disk that was full", func() error {
		select {
		case <-p.ended:
			p = e.launch(t, name)
		default:
		}
		resp, err := e.do(t.Context(), client, small)
		if err != nil {
			return err
		}
		if resp.fault != "" {
			return fmt.Errorf("%s: %s", resp.fault, resp.body)
		}
		messages = append(messages, resp.messageID)
		return nil
	})
	for _, id := range messages {
		e.verify(t, i, 0, e.bothSides(t, t.TempDir(), small, id)...)
	}
	e.stop(t, name)
	checkLog(t, g)

	// Back to the disk it came from; what the small one holds moves along.
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(disk)); err != nil {
		t.Fatal(err)
	}
	unmount()
	if err := errors.Join(os.Remove(disk), os.Rename(old, disk)); err != nil {
		t.Fatal(err)
	}
	write(t, g.Config, config)
	e.start(t, name)
}

// fill writes a file until the disk has so many bytes left, or none.
func fill(t testing.TB, file string, leave uint64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); ; {
		var s syscall.Statfs_t
		if err := syscall.Statfs(filepath.Dir(file), &s); err != nil {
			t.Fatal(err)
		}
		if s.Bavail*uint64(s.Bsize) <= leave {
			return
		}
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
