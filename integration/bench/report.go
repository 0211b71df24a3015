// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"kontor/integration/bench/reference"
)

// report is everything a run found.
type report struct {
	Machine  machine              `json:"machine"` // of the last run
	Sections map[string]*findings `json:"sections"`
	now      *findings
}

// machine says what was measured on what.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Caddy  string `json:"caddy"`
	Commit string `json:"commit"`
	Date   string `json:"date"`
}

// findings are those of one section.
type findings struct {
	Machine  machine            `json:"machine"`
	Rows     []row              `json:"rows,omitempty"`
	Tables   []table            `json:"tables"`
	Notes    []string           `json:"notes,omitempty"`
	Values   map[string]float64 `json:"values,omitempty"`
	Verified int                `json:"containers_verified,omitempty"`
}

// row is one subject and its samples, one of each round.
type row struct {
	What      string   `json:"what"`
	Clients   int      `json:"clients"`
	Bytes     int64    `json:"bytes,omitempty"`
	Samples   []sample `json:"samples"`
	Reference string   `json:"reference,omitempty"`
	Ratio     float64  `json:"ratio,omitempty"` // median of the ratios inside one round
}

// table is what people read.
type table struct {
	Title  string     `json:"title"`
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

func newReport() *report {
	r := &report{Machine: machine{cpuModel(), runtime.NumCPU(), kernel(), runtime.Version(), reference.CaddyVersion, commit(), time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		Sections: map[string]*findings{}}
	r.now = &findings{Machine: r.Machine}
	return r
}

func (r *report) verified(n int) { r.now.Verified += n }

func (r *report) note(format string, args ...any) {
	r.now.Notes = append(r.now.Notes, fmt.Sprintf(format, args...))
}

func (r *report) table(t table) { r.now.Tables = append(r.now.Tables, t) }

// add reports rows as a table.
func (r *report) add(title string, rows []row) {
	r.now.Rows = append(r.now.Rows, rows...)
	sized := slices.ContainsFunc(rows, func(r row) bool { return r.Bytes > 0 })
	t := table{Title: title, Header: []string{"what", "clients", "req/s", "ratio", "p50", "p99", "max", "CPU µs per exchange, both sides", "RSS MB, consumer's / provider's side"}}
	if sized {
		t.Header = []string{"what", "clients", "req/s", "MB/s", "ratio", "p50", "CPU ms per exchange, both sides", "peak RSS MB, consumer's / provider's side"}
	}
	for _, v := range rows {
		ratio := "–"
		if v.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", v.Ratio)
		}
		mb := func(of func(sample) [2]int64) string {
			side := func(i int) float64 { return v.median(func(s sample) float64 { return float64(of(s)[i]) }) / 1e6 }
			if side(0) == 0 {
				return "–"
			}
			return fmt.Sprintf("%.0f / %.0f", side(0), side(1))
		}
		d := func(of func(sample) time.Duration) string {
			return short(time.Duration(v.median(func(s sample) float64 { return float64(of(s)) })))
		}
		p50 := d(func(s sample) time.Duration { return s.P50 })
		cpu := v.median(func(s sample) float64 { return s.CPU })
		if sized {
			t.Rows = append(t.Rows, []string{v.What, fmt.Sprint(v.Clients), three(v.median(func(s sample) float64 { return s.Rate })),
				three(v.median(func(s sample) float64 { return s.MBps })), ratio, p50,
				fmt.Sprintf("%.1f", cpu/1000), mb(func(s sample) [2]int64 { return s.Peak })})
			continue
		}
		t.Rows = append(t.Rows, []string{v.What, fmt.Sprint(v.Clients), three(v.median(func(s sample) float64 { return s.Rate })), ratio, p50,
			d(func(s sample) time.Duration { return s.P99 }), d(func(s sample) time.Duration { return s.Max }), fmt.Sprintf("%.0f", cpu),
			mb(func(s sample) [2]int64 { return s.RSS })})
	}
	r.table(t)
}

// three writes a number with about three digits.
func three(v float64) string {
	switch {
	case v < 1:
		return fmt.Sprintf("%.2g", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// compareWith sets the ratio to the reference.
func (v *row) compareWith(all []row) {
	for _, ref := range all {
		if ref.What != v.Reference || ref.Clients != v.Clients || ref.Bytes != v.Bytes || v.What == v.Reference {
			continue
		}
		var ratios []float64
		for i, s := range v.Samples {
			ratios = append(ratios, s.Rate/ref.Samples[i].Rate)
		}
		v.Ratio = median(ratios)
	}
}

func (v row) median(of func(sample) float64) float64 {
	var all []float64
	for _, s := range v.Samples {
		all = append(all, of(s))
	}
	return median(all)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// write prints the findings of a section and puts them into the results, which
// keep those of other sections from earlier runs, and into the document.
func (r *report) write(results, docs, section string) error {
	now := r.now
	r.now = &findings{Machine: r.Machine}
	text := now.markdown()
	fmt.Println("\n" + text)

	b, err := os.ReadFile(results)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := json.Unmarshal(b, r); err != nil {
			return fmt.Errorf("%s: %w; remove it", results, err)
		}
	}
	r.Machine = now.Machine
	r.Sections[section] = now
	if b, err = json.MarshalIndent(r, "", "  "); err != nil {
		return err
	}
	if err := os.WriteFile(results, b, 0o644); err != nil {
		return err
	}
	if docs == "" {
		return nil
	}
	found, err := replace(docs, section, text)
	if err != nil || !found {
		return err
	}
	goals := findings{Machine: r.Machine, Tables: []table{r.goalTable()}}
	_, err = replace(docs, "goals", goals.markdown())
	return err
}

func (f *findings) markdown() string {
	var b strings.Builder
	m := f.Machine
	fmt.Fprintf(&b, "%s, commit %s; %s, %d CPUs, %s, %s, Caddy %s.", m.Date, m.Commit, m.CPU, m.CPUs, m.Kernel, m.Go, m.Caddy)
	if f.Verified > 0 {
		fmt.Fprintf(&b, " %d containers from both sides verified; every record of every exchange counted.", f.Verified)
	}
	b.WriteString("\n")
	for _, n := range f.Notes {
		b.WriteString("\n" + n + "\n")
	}
	for _, t := range f.Tables {
		if t.Title != "" {
			b.WriteString("\n" + t.Title + "\n")
		}
		b.WriteString("\n| " + strings.Join(t.Header, " | ") + " |\n|" + strings.Repeat("---|", len(t.Header)) + "\n")
		for _, r := range t.Rows {
			b.WriteString("| " + strings.Join(r, " | ") + " |\n")
		}
	}
	return b.String()
}

// replace puts text between the markers of a section, if the document has them.
func replace(file, section, text string) (found bool, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	begin, end := fmt.Sprintf("<!-- bench %s: begin -->\n", section), fmt.Sprintf("<!-- bench %s: end -->\n", section)
	head, rest, ok := bytes.Cut(b, []byte(begin))
	if !ok {
		return false, nil
	}
	_, tail, ok := bytes.Cut(rest, []byte(end))
	if !ok {
		return false, fmt.Errorf("%s has %q, but not its end", file, strings.TrimSpace(begin))
	}
	return true, os.WriteFile(file, slices.Concat(head, []byte(begin+text+end), tail), 0o644)
}
