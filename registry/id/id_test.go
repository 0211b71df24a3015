// SPDX-License-Identifier: Apache-2.0

package id_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kontor/registry/id"
)

func TestParseClient(t *testing.T) {
	for _, tc := range []struct{ in, log string }{
		{"DEV/GOV/1234", "MEMBER:DEV/GOV/1234"},
		{"DEV/GOV/1234/portal", "SUBSYSTEM:DEV/GOV/1234/portal"},
		{"DEV/GOV/12%2F34/a%20b", "SUBSYSTEM:DEV/GOV/12/34/a b"},
		{"DEV/GOV/%c3%b5un/a+b", "SUBSYSTEM:DEV/GOV/õun/a+b"},
		{"DEV/GOV/1:2;3/(a)*@", "SUBSYSTEM:DEV/GOV/1:2;3/(a)*@"},
	} {
		c, err := id.ParseClient(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
		} else if c.LogString() != tc.log {
			t.Errorf("%q: log form %q, want %q", tc.in, c.LogString(), tc.log)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "DEV", "DEV/GOV", "DEV/GOV/1/s/x", "DEV/GOV/1/", "DEV//1", "DEV/GOV/ ", "DEV/GOV/%20", "DEV/GOV/a b",
		"DEV/GOV/%", "DEV/GOV/%2", "DEV/GOV/%zz", "DEV/GOV/õ", "DEV/GOV/a|b", "DEV/GOV/a[b", "DEV/GOV/%ff",
		"DEV/GOV/1\n", "DEV/GOV/1?x", "DEV/GOV/1#x", "/DEV/GOV/1", "DEV/GOV/" + strings.Repeat("x", 17<<10),
	} {
		if c, err := id.ParseClient(in); err == nil {
			t.Errorf("%.40q accepted as %v", in, c)
		} else if !errors.Is(err, id.ErrSyntax) && !errors.Is(err, id.ErrBlank) {
			t.Errorf("%.40q: untyped error %v", in, err)
		}
	}
}

func TestEquality(t *testing.T) {
	parse := func(s string) id.Client {
		c, err := id.ParseClient(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if parse("DEV/GOV/1234/a") != parse("DEV/GOV/%31234/%61") {
		t.Error("encoded and plain forms differ")
	}
	// e with acute, composed and decomposed: X-Road does not normalise.
	if parse("DEV/GOV/1/%C3%A9") == parse("DEV/GOV/1/e%CC%81") {
		t.Error("Unicode was normalised")
	}
	if parse("DEV/GOV/1/a") == parse("DEV/GOV/1/A") || parse("DEV/GOV/1") == parse("DEV/GOV/1/a") {
		t.Error("different clients are equal")
	}
	if parse("DEV/GOV/a%2Fb") == parse("DEV/GOV/a/b") {
		t.Error("an encoded slash moved the border between parts")
	}
}

func TestServiceVersion(t *testing.T) {
	owner, _ := id.ParseClient("DEV/GOV/1/s")
	plain, _ := id.NewService(owner, "x")
	empty, _ := id.NewServiceVersion(owner, "x", "")
	v1, _ := id.NewServiceVersion(owner, "x", "v1")
	if plain == empty || empty == v1 {
		t.Error("an empty version equals none or another")
	}
	if got := v1.LogString(); got != "SERVICE:DEV/GOV/1/s/x/v1" {
		t.Errorf("log form %q", got)
	}
}

func TestSecurityServerAndGroups(t *testing.T) {
	s, err := id.ParseSecurityServer("DEV/GOV/1234/ss1")
	if err != nil || s.LogString() != "SERVER:DEV/GOV/1234/ss1" || s.Owner().Code() != "1234" {
		t.Errorf("%v, %v", s.LogString(), err)
	}
	g, err := id.ParseGlobalGroup("DEV/owners")
	if err != nil || g.LogString() != "GLOBALGROUP:DEV/owners" {
		t.Errorf("%v, %v", g.LogString(), err)
	}
	r, err := id.ParseRepresentedParty("COM/7")
	if err != nil || r.Class() != "COM" || r.Code() != "7" {
		t.Errorf("%v, %v", r, err)
	}
	if r, err = id.ParseRepresentedParty("7"); err != nil || r.Class() != "" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err = id.ParseRepresentedParty("a/b/c"); err == nil {
		t.Error("three parts accepted")
	}
}

func TestCheckCharacters(t *testing.T) {
	for _, ok := range []string{"1234", "a b", "õun", "a-b_c.d", "'()+,="} {
		if err := id.CheckCharacters(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", " ", "a/b", "a\\b", "a:b", "a;b", "a%b", "a\x00", "a\u0085", "a\u200b", "\ufeffa", "\xff", strings.Repeat("x", 256)} {
		if id.CheckCharacters(bad) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestAbsentPrintsAsNothing(t *testing.T) {
	for _, v := range []interface{ String() string }{id.Member{}, id.Client{}, id.Service{}, id.SecurityServer{}, id.GlobalGroup{}} {
		if v.String() != "" {
			t.Errorf("%T prints %q", v, v.String())
		}
	}
}

func TestJSONZero(t *testing.T) {
	type doc struct {
		C id.Client
		S id.SecurityServer
	}
	b, err := json.Marshal(doc{})
	if err != nil || string(b) != `{"C":"","S":""}` {
		t.Fatalf("%s, %v", b, err)
	}
	var d doc
	if err := json.Unmarshal(b, &d); err != nil || !d.C.IsZero() {
		t.Fatal(d, err)
	}
}

// part draws an identifier part: anything but blank, valid UTF-8.
func part() *rapid.Generator[string] {
	return rapid.String().Filter(func(s string) bool { return strings.TrimSpace(s) != "" })
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := id.NewMember(part().Draw(t, "i"), part().Draw(t, "c"), part().Draw(t, "m"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := id.NewClient(m, part().Draw(t, "s"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := id.NewService(c, part().Draw(t, "code"))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := id.ParseService(s.String()); err != nil || back != s {
			t.Fatalf("%q became %v, %v", s.String(), back, err)
		}
		if back, err := id.ParseClient(c.String()); err != nil || back != c {
			t.Fatalf("%q became %v, %v", c.String(), back, err)
		}
	})
}

// TestAllocations: every exchange reads and prints several identifiers.
func TestAllocations(t *testing.T) {
	const plain, escaped = "DEV/GOV/1234/portal/persons", "DEV/GOV/12%2F34/%C3%B5/x"
	for _, x := range []struct {
		what string
		most float64
		f    func()
	}{
		{"parse", 0, func() { _, _ = id.ParseService(plain) }},
		{"parse two escaped parts", 2, func() { _, _ = id.ParseService(escaped) }},
	} {
		if n := testing.AllocsPerRun(100, x.f); n > x.most {
			t.Errorf("%s: %v allocations, at most %v are allowed", x.what, n, x.most)
		}
	}
	for _, text := range []string{plain, escaped} {
		s, err := id.ParseService(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = s.String() }); n > 1 {
			t.Errorf("print %s: %v allocations, at most 1 is allowed", text, n)
		}
	}
}

func BenchmarkService(b *testing.B) {
	s, err := id.ParseService("DEV/GOV/1234/portal/persons")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = id.ParseService("DEV/GOV/1234/portal/persons")
		}
	})
	b.Run("print", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = s.String()
		}
	})
}

func FuzzParseService(f *testing.F) {
	f.Add("DEV/GOV/1234/sub/svc")
	f.Add("DEV/GOV/12%2F34/%C3%B5/x")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := id.ParseService(in)
		if err != nil {
			return
		}
		if back, err := id.ParseService(s.String()); err != nil || back != s {
			t.Fatalf("%q: %q became %v, %v", in, s.String(), back, err)
		}
	})
}
