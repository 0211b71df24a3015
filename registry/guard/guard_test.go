// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/registry/guard"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestKeys(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sub", "keys.json")
	first, err := guard.CreateKeys(file, "local", "boss", "clerk")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	keys, err := guard.LoadKeys(file, "boss", "clerk")
	if err != nil {
		t.Fatal(err)
	}
	second, err := keys.Add("alice", []string{"clerk", "clerk"}, start)
	if err != nil {
		t.Fatal(err)
	}
	for _, load := range []bool{false, true} {
		if load {
			if keys, err = guard.LoadKeys(file, "boss", "clerk"); err != nil {
				t.Fatal(err)
			}
		}
		for header, want := range map[string]string{
			"X-Road-ApiKey token=" + first: "local", "x-road-apikey TOKEN=" + second: "alice",
			"": "", "X-Road-ApiKey token=": "", "X-Road-ApiKey token=" + first + " ": "", "Bearer " + first: "", "X-Road-ApiKey token=" + strings.ToLower(first): "",
		} {
			key, err := keys.Authenticate(header)
			if key.Name != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, guard.ErrNoKey) {
				t.Errorf("%q: %+v, %v", header, key, err)
			}
		}
	}
	if k := keys.List()[1]; len(k.Roles) != 1 || !k.HasOneOf([]string{"boss", "clerk"}) || k.HasOneOf([]string{"boss"}) {
		t.Errorf("%+v", k)
	}
	for name, tc := range map[string]struct {
		name  string
		roles []string
		want  error
	}{
		"twice": {"alice", []string{"clerk"}, guard.ErrKeyExists}, "no role": {"bob", nil, guard.ErrKeyInvalid}, "other role": {"bob", []string{"king"}, guard.ErrKeyInvalid},
		"no name": {"", []string{"clerk"}, guard.ErrKeyInvalid}, "line break": {"a\nb", []string{"clerk"}, guard.ErrKeyInvalid}, "long": {strings.Repeat("a", 65), []string{"clerk"}, guard.ErrKeyInvalid},
		"a mark first": {"-a", []string{"clerk"}, guard.ErrKeyInvalid}, "no UTF-8": {"a\xff", []string{"clerk"}, guard.ErrKeyInvalid}, "other mark": {"a/b", []string{"clerk"}, guard.ErrKeyInvalid},
	} {
		if _, err := keys.Add(tc.name, tc.roles, start); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"7 . _@+-", strings.Repeat("ü", 64)} {
		if _, err := keys.Add(name, []string{"clerk"}, start); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := keys.Delete("local", "boss"); !errors.Is(err, guard.ErrLastKey) {
		t.Error(err)
	}
	if err := keys.Delete("bob", "boss"); !errors.Is(err, guard.ErrKeyUnknown) {
		t.Error(err)
	}
	if err := keys.Delete("alice", "boss"); err != nil {
		t.Error(err)
	}
	if _, err := keys.Authenticate("X-Road-ApiKey token=" + second); !errors.Is(err, guard.ErrNoKey) {
		t.Error(err)
	}
	for name, content := range map[string]string{"no JSON": "x", "no hash": `[{"name":"a","sha256":"00","roles":["boss"]}]`,
		"other role": `[{"name":"a","sha256":"` + strings.Repeat("00", 32) + `","roles":["king"]}]`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := guard.LoadKeys(file, "boss"); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	now := start
	r := guard.NewRate(func() time.Time { return now })
	take := func(addr string) (n int) {
		for {
			wait, ok := r.Allow(addr)
			if !ok {
				if wait <= 0 || wait > time.Minute {
					t.Fatal(wait)
				}
				return n
			}
			n++
		}
	}
	if n := take("192.0.2.1:1"); n != 20 {
		t.Errorf("%d calls at once", n)
	}
	if n := take("192.0.2.1:2"); n != 0 {
		t.Errorf("%d more from another port", n)
	}
	if n := take("[::ffff:192.0.2.1]:2"); n != 0 {
		t.Errorf("%d more in another notation", n)
	}
	if n := take("192.0.2.2:1"); n != 20 {
		t.Errorf("%d calls from another address", n)
	}
	if n := take("[2001:db8::1]:1") + take("[2001:db8::2]:1"); n != 20 {
		t.Errorf("%d calls from one network", n)
	}
	total := 0
	now = now.Add(time.Hour)
	for range 60 {
		total += take("192.0.2.1:1")
		now = now.Add(time.Second)
	}
	if total != 600 {
		t.Errorf("%d calls in a minute", total)
	}
	if total = take("192.0.2.1:1"); total != 20 { // those of the first second are forgotten
		t.Errorf("%d calls in the next second", total)
	}
	now = now.Add(-time.Hour)
	if n := take("192.0.2.1:1"); n != 0 {
		t.Errorf("%d calls by setting the clock back", n)
	}
	for i := range 40_000 { // memory stays bounded, whoever calls
		r.Allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
}

// A client that repeats a call which is under way waits for its answer.
func TestClientWaits(t *testing.T) {
	t.Parallel()
	calls := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			w.Header().Set("Retry-After", "0")
			guard.WriteProblem(w, guard.NewProblem(http.StatusConflict, guard.CodeUnderWay, "under way", "repeat it"))
			return
		}
		if calls == 3 { // another conflict is final
			w.Header().Set("Retry-After", "0")
			guard.WriteProblem(w, guard.NewProblem(http.StatusConflict, guard.CodeExists, "there", "change it"))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	c := guard.NewClient(s.URL, "key", "gateway", s.Certificate())
	do := func() error {
		resp, err := c.Do(t.Context(), guard.Once(guard.Request{Method: http.MethodPost, Path: "/"}))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := do(); err != nil || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if err := do(); err == nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	open := func() *guard.Audit {
		t.Helper()
		a, err := guard.OpenAudit(file)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	lines := func(name string) int {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "\n")
	}
	a := open()
	var writers sync.WaitGroup
	for i := range 50 {
		writers.Go(func() {
			if err := a.Append(&guard.Record{Who: "alice", Why: "a<b\n", Entry: uint64(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if last, err := a.LastEntry(); err != nil || last != 49 || lines(file) != 50 {
		t.Error(last, err, lines(file))
	}
	// It is rotated by renaming.
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Append(&guard.Record{Entry: 60}); err != nil {
		t.Fatal(err)
	}
	if lines(file) != 1 || lines(file+".1") != 50 {
		t.Error("the log did not follow its name")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a.Usable() == nil || a.Append(&guard.Record{}) == nil {
		t.Error("a closed log takes records")
	}
	// A crash has cut the last record.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"time":"2026-`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	a = open()
	defer a.Close()
	if err := a.Append(&guard.Record{Entry: 61}); err != nil {
		t.Fatal(err)
	}
	if last, err := a.LastEntry(); err != nil || last != 61 || lines(file) != 2 {
		t.Error(last, err, lines(file))
	}
	if b, _ := os.ReadFile(file); strings.Contains(string(b), "2026-{") {
		t.Errorf("the cut record is still there: %s", b)
	}
}
