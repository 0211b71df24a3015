// SPDX-License-Identifier: Apache-2.0

// Command bench measures the Kontor chain on this machine, side by side with
// chains of reverse proxies that sign and keep nothing: load generator →
// consumer's side → mutual TLS → provider's side → service, on loopback. It
// starts and stops everything itself.
//
// What is compared is measured in turns, A B C A B C, since machines change
// their speed; medians, and medians of the ratios inside one round, are what it
// reports. See docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kontor/integration/bench/network"
	"kontor/integration/bench/process"
	"kontor/integration/bench/reference"
	"kontor/integration/bench/service"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	bin      string
	cache    string
	docs     string
	rounds   int
	length   time.Duration
	duration time.Duration
}

func run(args []string) error {
	// The programs beside the load generator are this one, too.
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return service.Serve(args[1])
		case "proxy":
			return reference.ServeProxy(args[1:])
		case "relay":
			return network.Relay(args[1:])
		}
	}
	var o options
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&o.bin, "bin", "bin", "folder with kontor and kontor-verify")
	f.StringVar(&o.cache, "cache", "bin/bench", "folder for Caddy, results.json and, while it runs, everything else; not in memory")
	f.StringVar(&o.docs, "docs", "", "Markdown file whose tables are replaced; empty: print only")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of every comparison")
	f.DurationVar(&o.length, "time", 2500*time.Millisecond, "length of one measurement")
	f.DurationVar(&o.duration, "duration", 10*time.Minute, "length of the sustained load")
	if err := f.Parse(args); err != nil {
		return err
	}
	which, err := choose(f.Args())
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	err = b.sections(which)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err = errors.Join(err, b.close()); err != nil {
		return err
	}
	for _, line := range b.summary {
		fmt.Println(line)
	}
	return nil
}

// choose turns names into sections; none means all but those that take very
// long or are part of others.
func choose(names []string) ([]section, error) {
	var chosen []section
	var known []string
	for _, s := range all {
		known = append(known, s.name)
		if slices.Contains(names, s.name) || slices.Contains(names, "all") && s.name != "quick" || len(names) == 0 && s.normal {
			chosen = append(chosen, s)
		}
	}
	for _, n := range names {
		if n != "all" && !slices.Contains(known, n) {
			return nil, fmt.Errorf("there is no section %q; choose from %s and all", n, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// section is one part of a run.
type section struct {
	name   string
	normal bool // part of a run for which no sections are named
	run    func(*bench) error
	takes  func(options) time.Duration // about
}

// all sections, in their order.
var all = []section{
	{"quick", false, (*bench).quick, quickTakes},
	{"core", true, (*bench).core, coreTakes},
	{"keys", true, (*bench).keys, keysTake},
	{"soap", true, (*bench).soap, soapTakes},
	{"bodies", true, (*bench).bodies, bodiesTake},
	{"start", true, (*bench).startUp, startTakes},
	{"stages", true, (*bench).stages, stagesTake},
	{"ecosystem", true, (*bench).ecosystem, ecosystemTakes},
	{"netem", true, (*bench).netem, netemTakes},
	{"sustained", false, (*bench).sustained, sustainedTakes},
}

// bench is one run.
type bench struct {
	options
	ctx     context.Context
	dir     string // of this run
	self    string
	caddy   string
	backend *process.Process
	report  *report
	left    time.Duration // of the sections to come, about
	folders int
	summary []string // the last lines of all
}

// Addresses on loopback, none of the sandbox's.
const (
	registryIP = "127.90.0.10"
	trustIP    = "127.90.0.13"
	backendAt  = "127.90.0.14:8000"
)

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o, ctx: ctx, report: newReport()}
	for _, p := range []*string{&b.bin, &b.cache} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return nil, err
	}
	if inMemory(b.cache) {
		return nil, fmt.Errorf("%s is in memory, where it costs nothing to make records durable; choose a folder on a disk with -cache", b.cache)
	}
	if b.dir, err = os.MkdirTemp(b.cache, "run-"); err != nil {
		return nil, err
	}
	return b, nil
}

// close removes what the run has left.
func (b *bench) close() error {
	var err error
	if b.backend != nil {
		err = b.backend.Stop()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// sections runs sections one after the other. What they find is written after
// each, so that an interrupted run keeps it.
func (b *bench) sections(which []section) error {
	if err := process.Free(backendAt); err != nil {
		return err
	}
	var err error
	if b.backend, err = process.Start(process.Spec{Name: "service", Args: []string{b.self, "serve", backendAt}, Log: filepath.Join(b.dir, "service.log")}); err != nil {
		return err
	}
	for i, s := range which {
		b.left = 0
		for _, s := range which[i:] {
			b.left += s.takes(b.options)
		}
		b.say("== %s (%d of %d), about %s left", s.name, i+1, len(which), b.left.Round(10*time.Second))
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := b.report.write(filepath.Join(b.cache, "results.json"), b.docs, s.name); err != nil {
			return err
		}
	}
	return nil
}

// say tells people what happens.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+"  "+format+"\n", args...)
}

// folder makes a folder for something that runs.
func (b *bench) folder(name string) (string, error) {
	b.folders++
	dir := filepath.Join(b.dir, fmt.Sprintf("%d-%s", b.folders, strings.ReplaceAll(name, " ", "-")))
	return dir, os.MkdirAll(dir, 0o700)
}
