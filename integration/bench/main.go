// SPDX-License-Identifier: Apache-2.0

// Command bench measures the Kontor chain on this machine: load generator →
// consumer's gateway → mutual TLS → provider's gateway → service, on loopback,
// each gateway a process of its own. Signing, verification, OCSP, durable logs
// on both sides and time-stamping are on; a sample of the evidence that the run
// leaves is verified at its end.
//
// It writes its table between the markers of docs/benchmarks.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const service = "SANDBOX/GOV/2002/population/persons"

func main() {
	bin := flag.String("bin", "bin/kontor", "the kontor binary to measure")
	out := flag.String("out", "", "Markdown file whose table is replaced; empty: print only")
	rounds := flag.Int("rounds", 5, "rounds; medians are shown")
	seconds := flag.Duration("time", 5*time.Second, "length of one measurement")
	flag.Parse()
	if err := run(*bin, *out, *rounds, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type ecosystem struct {
	Gateways []struct {
		Consumer, Config, Data string
		PID                    int
	}
	Anchor string
}

// sample is what one measurement gave.
type sample struct {
	rate     float64 // answers per second
	p50, p99 time.Duration
	failed   int
	rss      [2]int64 // KiB, both gateways, after the load
	cpu      float64  // µs of both gateways per exchange
	lastID   string
}

func run(bin, out string, rounds int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "kontor-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	began := time.Now()
	eco, stop, err := start(bin, dir)
	if err != nil {
		return err
	}
	defer stop()
	ready := time.Since(began)
	idle := [2]int64{rss(eco.Gateways[0].PID), rss(eco.Gateways[1].PID)}

	cases := []struct {
		name    string
		clients int
		path    string
	}{
		{"REST, 1 KB answer, 1 client", 1, "/bytes/1024"},
		{"REST, 1 KB answer, 64 clients", 64, "/bytes/1024"},
	}
	addr := strings.TrimPrefix(eco.Gateways[0].Consumer, "http://")
	if _, err := load(addr, "/bytes/1024", 16, 2*time.Second, eco); err != nil { // warm
		return err
	}
	results := make([][]sample, len(cases))
	for r := range rounds {
		for i, c := range cases {
			s, err := load(addr, c.path, c.clients, length, eco)
			if err != nil {
				return err
			}
			results[i] = append(results[i], s)
			fmt.Fprintf(os.Stderr, "round %d  %-32s %8.0f/s  p50 %-10s p99 %-10s failed %d\n", r+1, c.name, s.rate, s.p50, s.p99, s.failed)
		}
	}
	if err := verifySample(bin, dir, eco, results[len(results)-1]); err != nil {
		return fmt.Errorf("the evidence of the run does not verify: %w", err)
	}

	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s, %d CPUs, %s, commit %s; medians of %d rounds of %s, loopback, P-256 keys, load generator and service on the same CPUs.\n\n",
		time.Now().UTC().Format(time.DateOnly), cpuModel(), runtime.NumCPU(), runtime.Version(), commit(), rounds, length)
	fmt.Fprintln(&b, "| what | req/s | p50 | p99 | CPU µs/exchange, both gateways | RSS MB, consumer's / provider's gateway | failed |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|")
	for i, c := range cases {
		m := results[i]
		fmt.Fprintf(&b, "| %s | %.0f | %s | %s | %.0f | %d / %d | %d |\n", c.name,
			median(m, func(s sample) float64 { return s.rate }),
			ms(median(m, func(s sample) float64 { return float64(s.p50) })), ms(median(m, func(s sample) float64 { return float64(s.p99) })),
			median(m, func(s sample) float64 { return s.cpu }),
			int(median(m, func(s sample) float64 { return float64(s.rss[0]) }))>>10, int(median(m, func(s sample) float64 { return float64(s.rss[1]) }))>>10,
			sum(m))
	}
	fmt.Fprintf(&b, "\nWhole sandbox, made from nothing, ready after %s; RSS of the idle gateways %d and %d MB. A sample of the evidence on both sides was verified after the run.\n",
		ready.Round(10*time.Millisecond), idle[0]>>10, idle[1]>>10)
	fmt.Print("\n" + b.String())
	if out == "" {
		return nil
	}
	return replace(out, b.Bytes())
}

// start runs a sandbox with a process per role.
func start(bin, dir string) (*ecosystem, func(), error) {
	cmd := exec.Command(bin, "sandbox", "--dir", dir, "--processes")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop := func() {
		if cmd.Process.Signal(syscall.SIGTERM) == nil {
			<-done
		}
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, "sandbox.json")); err == nil {
			eco := new(ecosystem)
			if err := json.Unmarshal(b, eco); err != nil {
				stop()
				return nil, nil, err
			}
			return eco, stop, nil
		}
		select {
		case err := <-done:
			return nil, nil, fmt.Errorf("the sandbox ended: %w", err)
		default:
		}
	}
	stop()
	return nil, nil, errors.New("the sandbox did not get ready within a minute")
}

// load keeps clients busy for a while, each on one connection.
func load(addr, path string, clients int, length time.Duration, eco *ecosystem) (sample, error) {
	request := []byte("GET /r1/" + service + path + " HTTP/1.1\r\nHost: " + addr + "\r\nX-Road-Client: SANDBOX/GOV/1001/portal\r\nAccept: */*\r\n\r\n")
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	type result struct {
		took   []time.Duration
		failed int
		lastID string
		err    error
	}
	results := make([]result, clients)
	before := cpu(eco)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := &results[i]
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				r.err = err
				return
			}
			defer conn.Close()
			br := bufio.NewReaderSize(conn, 16<<10)
			for ctx.Err() == nil {
				t := time.Now()
				if _, r.err = conn.Write(request); r.err != nil {
					return
				}
				status, id, err := readAnswer(br)
				if err != nil {
					r.err = err
					return
				}
				r.took = append(r.took, time.Since(t))
				r.lastID = id
				if status != 200 {
					r.failed++
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	used := cpu(eco) - before
	var s sample
	var all []time.Duration
	for _, r := range results {
		if r.err != nil {
			return s, r.err
		}
		all = append(all, r.took...)
		s.failed += r.failed
		s.lastID = r.lastID
	}
	slices.Sort(all)
	s.rate = float64(len(all)) / elapsed.Seconds()
	s.p50, s.p99 = all[len(all)/2], all[len(all)*99/100]
	s.rss = [2]int64{rss(eco.Gateways[0].PID), rss(eco.Gateways[1].PID)}
	s.cpu = used.Seconds() * 1e6 / float64(len(all))
	return s, nil
}

// readAnswer reads one response with a Content-Length. It is cheap on purpose:
// the generator shares the CPUs with what it measures.
func readAnswer(br *bufio.Reader) (status int, messageID string, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return 0, "", err
	}
	if len(line) < 12 {
		return 0, "", errors.New("short status line")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, "", err
	}
	length := -1
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, "", err
			}
		case bytes.EqualFold(name, []byte("x-road-id")):
			messageID = string(bytes.TrimSpace(value))
		}
	}
	if length < 0 {
		return 0, "", errors.New("an answer without Content-Length")
	}
	_, err = br.Discard(length)
	return status, messageID, err
}

// verifySample exports the last exchange of every round from both gateways and
// has it verified against the anchor.
func verifySample(bin, dir string, eco *ecosystem, samples []sample) error {
	for _, s := range samples {
		for i, g := range eco.Gateways {
			zip := filepath.Join(dir, fmt.Sprintf("%s-%d.zip", s.lastID, i))
			if b, err := exec.Command(bin, "log", "export", "--config", g.Config, "--id", s.lastID, "--force", "--out", zip).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, b)
			}
			if b, err := exec.Command(bin, "verify", zip, "--anchor", eco.Anchor, "--conf", filepath.Join(g.Data, "globalconf")).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, b)
			}
		}
	}
	return nil
}

// rss returns the resident memory of a process in KiB, 0 if unknown.
func rss(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // the kernel writes numbers
			return n
		}
	}
	return 0
}

// cpu returns the CPU time that both gateways have used, 0 if unknown.
func cpu(eco *ecosystem) time.Duration {
	var ticks int64
	for _, g := range eco.Gateways {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.PID))
		if err != nil {
			return 0
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		for _, f := range fields[11:13] { // utime, stime
			n, _ := strconv.ParseInt(f, 10, 64) // the kernel writes numbers
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

func median(all []sample, of func(sample) float64) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func sum(all []sample) (failed int) {
	for _, s := range all {
		failed += s.failed
	}
	return failed
}

func ms(ns float64) string { return fmt.Sprintf("%.2f ms", ns/1e6) }

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				return strings.TrimSpace(v)
			}
		}
	}
	return runtime.GOARCH
}

func commit() string {
	b, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

const (
	beginMark = "<!-- bench: begin -->\n"
	endMark   = "<!-- bench: end -->"
)

// replace puts the table between the markers of a file.
func replace(file string, table []byte) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(b, []byte(beginMark))
	_, tail, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %q and %q", file, strings.TrimSpace(beginMark), endMark)
	}
	return os.WriteFile(file, slices.Concat(head, []byte(beginMark), table, []byte(endMark), tail), 0o644)
}
