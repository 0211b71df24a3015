// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	for names, want := range map[string]string{
		"":                "core keys soap bodies start stages ecosystem netem",
		"quick":           "quick",
		"soap core":       "core soap",
		"all":             "core keys soap bodies start stages ecosystem netem sustained",
		"nonsense":        "there is no section",
		"core everything": "there is no section",
	} {
		chosen, err := choose(strings.Fields(names))
		var got []string
		for _, s := range chosen {
			got = append(got, s.name)
		}
		if text := strings.Join(got, " "); err == nil && text != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %q", names, text, err, want)
		}
	}
}

// A run of all that is normal is to fit into 25 minutes, the core comparison
// into three minutes.
func TestEstimates(t *testing.T) {
	o := options{rounds: 5, length: 2500 * time.Millisecond}
	var sum time.Duration
	for _, s := range all {
		if s.normal {
			sum += s.takes(o)
		}
	}
	if sum > 25*time.Minute || quickTakes(o) > 3*time.Minute {
		t.Errorf("all take %s, quick takes %s", sum, quickTakes(o))
	}
	t.Log(sum, quickTakes(o))
}

// A ratio is the median of those inside one round, not that of medians.
func TestRatio(t *testing.T) {
	of := func(rates ...float64) (v []sample) {
		for _, r := range rates {
			v = append(v, sample{Rate: r})
		}
		return v
	}
	rows := []row{
		{What: "a", Clients: 1, Samples: of(100, 50, 10)},
		{What: "a", Clients: 2, Samples: of(1, 1, 1)},
		{What: "b", Clients: 1, Samples: of(50, 100, 30), Reference: "a"},
	}
	rows[2].compareWith(rows)
	if rows[2].Ratio != 2 {
		t.Error(rows[2].Ratio)
	}
}

func TestParseBenchmarks(t *testing.T) {
	found, err := parseBenchmarks([]byte(`goos: linux
BenchmarkLargeEcosystem/Apply-2         	       5	   8112345 ns/op
BenchmarkLargeEcosystem/Memory          	       1	         0 ns/op	        42.50 gateway-MB	        92.10 registry-MB
PASS
`))
	if err != nil || found["LargeEcosystem/Apply ns/op"] != 8112345 || found["LargeEcosystem/Memory gateway-MB"] != 42.5 || len(found) != 4 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("head\n<!-- bench a: begin -->\nold\n<!-- bench a: end -->\ntail\n<!-- bench b: begin -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := replace(file, "a", "new\n"); !found || err != nil {
		t.Error(found, err)
	}
	if found, err := replace(file, "c", "new\n"); found || err != nil {
		t.Error(found, err)
	}
	if _, err := replace(file, "b", "new\n"); err == nil {
		t.Error("a section without an end was replaced")
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "begin -->\nnew\n<!-- bench a: end -->\ntail") {
		t.Errorf("%s, %v", b, err)
	}
}
