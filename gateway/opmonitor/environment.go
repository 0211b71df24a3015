// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Environment knows the machine and the certificates of a security server
// (X-Road: Monitoring Messages). What the operating system does not tell is
// left out: it reads /proc, as Linux has it.
type Environment struct {
	cfg EnvironmentConfig

	mu      sync.Mutex
	samples map[string]*samples
	cpu     [2]uint64 // busy and all time, when it was last read
}

// EnvironmentConfig says where to look. Zero values mean the defaults.
type EnvironmentConfig struct {
	Proc     string // default /proc
	Packages string // list of installed packages; default /var/lib/dpkg/status
	// Certificates returns the certificates to be told of.
	Certificates func() []Certificate
	Interval     time.Duration // between samples; default 10 s
	Now          func() time.Time
}

// The types of certificates.
const (
	AuthOrSign          = "AUTH_OR_SIGN"
	SecurityServerTLS   = "SECURITY_SERVER_TLS"
	InternalISClientTLS = "INTERNAL_IS_CLIENT_TLS"
)

// The names of metrics.
const (
	operatingSystem     = "OperatingSystem"
	certificates        = "Certificates"
	processes           = "Processes"
	ownProcesses        = "Xroad Processes"
	packages            = "Packages"
	systemCPULoad       = "SystemCpuLoad"
	freePhysicalMemory  = "FreePhysicalMemory"
	freeSwapSpace       = "FreeSwapSpace"
	openFiles           = "OpenFileDescriptorCount"
	committedMemory     = "CommittedVirtualMemory"
	maxFiles            = "MaxFileDescriptorCount"
	totalSwapSpace      = "TotalSwapSpace"
	totalPhysicalMemory = "TotalPhysicalMemory"
	diskSpaceFree       = "DiskSpaceFree_/"
	diskSpaceTotal      = "DiskSpaceTotal_/"
)

const (
	sampleWindow   = time.Hour
	maxListed      = 20_000 // processes or packages
	ticksPerSecond = 100    // USER_HZ, which is that on all of Linux

	certificateTime = "2006-01-02T15:04:05Z"
)

// Certificate is one to be told of.
type Certificate struct {
	*x509.Certificate
	Type   string
	Active bool
}

// metric is a number, a text, a histogram, or a set of others.
type metric struct {
	name      string
	text      string
	words     bool // text, even if it looks like a number
	histogram *histogram
	set       bool
	children  []metric
}

type histogram struct {
	updated                           time.Time
	min, max, mean, median, deviation float64
}

// samples are the values of the last hour.
type samples struct {
	at     []time.Time
	values []float64
}

func (s *samples) add(at time.Time, v float64) {
	s.at, s.values = append(s.at, at), append(s.values, v)
	old := 0
	for old < len(s.at) && at.Sub(s.at[old]) > sampleWindow {
		old++
	}
	s.at, s.values = slices.Delete(s.at, 0, old), slices.Delete(s.values, 0, old)
}

func (s *samples) histogram() *histogram {
	v := slices.Sorted(slices.Values(s.values))
	n := len(v)
	h := &histogram{updated: s.at[n-1], min: v[0], max: v[n-1], median: v[n/2]}
	if n%2 == 0 {
		h.median = (v[n/2-1] + v[n/2]) / 2
	}
	for _, x := range v {
		h.mean += x / float64(n)
	}
	if n > 1 {
		var square float64
		for _, x := range v {
			square += (x - h.mean) * (x - h.mean)
		}
		h.deviation = math.Sqrt(square / float64(n-1))
	}
	return h
}

// NewEnvironment returns what knows this machine.
func NewEnvironment(cfg EnvironmentConfig) *Environment {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Packages == "" {
		cfg.Packages = "/var/lib/dpkg/status"
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Environment{cfg: cfg, samples: map[string]*samples{}}
	e.sample(cfg.Now())
	return e
}

// Run samples until ctx is done.
func (e *Environment) Run(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			e.sample(e.cfg.Now())
		}
	}
}

func (e *Environment) proc(names ...string) string {
	return filepath.Join(append([]string{e.cfg.Proc}, names...)...)
}

func (e *Environment) sample(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	add := func(name string, v float64, ok bool) {
		if !ok {
			return
		}
		s := e.samples[name]
		if s == nil {
			s = new(samples)
			e.samples[name] = s
		}
		s.add(now, v)
	}
	memory := e.memory()
	available, ok := memory["MemAvailable"]
	add(freePhysicalMemory, available, ok)
	swap, ok := memory["SwapFree"]
	add(freeSwapSpace, swap, ok)
	if fds, err := os.ReadDir(e.proc("self", "fd")); err == nil {
		add(openFiles, float64(len(fds)), true)
	}
	if b, err := os.ReadFile(e.proc("self", "statm")); err == nil {
		pages, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseFloat(pages, 64)
		add(committedMemory, n*float64(os.Getpagesize()), err == nil)
	}
	load, ok := e.load()
	add(systemCPULoad, load, ok)
}

// load returns how much of its time the machine was busy since it was last
// asked, in percent.
func (e *Environment) load() (percent float64, ok bool) {
	b, err := os.ReadFile(e.proc("stat"))
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var all, idle uint64
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseUint(f, 10, 64)
		if i == 0 || i > 8 || err != nil { // beyond are times of guests, which are counted already
			continue
		}
		all += n
		if i == 4 || i == 5 { // idle, and waiting for a disk
			idle += n
		}
	}
	was := e.cpu
	e.cpu = [2]uint64{all - idle, all}
	if was[1] == 0 || all <= was[1] {
		return 0, false
	}
	return 100 * float64(all-idle-was[0]) / float64(all-was[1]), true
}

// memory returns the numbers of meminfo, in bytes.
func (e *Environment) memory() map[string]float64 {
	m := map[string]float64{}
	b, err := os.ReadFile(e.proc("meminfo"))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) == 0 {
			continue
		}
		if n, err := strconv.ParseFloat(f[0], 64); err == nil {
			m[name] = n * 1024
		}
	}
	return m
}

// metrics returns the metrics of those names, or all if there are none. Only
// some are for those who may not see all.
func (e *Environment) metrics(names []string, all bool, now time.Time) metric {
	root := metric{name: "systemMetrics", set: true}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	add := func(m metric, ok bool) {
		if ok && wanted(m.name) {
			root.children = append(root.children, m)
		}
	}
	if wanted(certificates) {
		add(e.certificates(), true)
	}
	if b, err := os.ReadFile(e.proc("version")); err == nil {
		add(metric{name: operatingSystem, text: strings.TrimSpace(string(b)), words: true}, true)
	}
	if !all {
		return root
	}
	number := func(name string, v float64, ok bool) { add(metric{name: name, text: decimal(v)}, ok) }
	memory := e.memory()
	total, ok := memory["MemTotal"]
	number(totalPhysicalMemory, total, ok)
	swap, ok := memory["SwapTotal"]
	number(totalSwapSpace, swap, ok)
	limit, ok := e.fileLimit()
	number(maxFiles, limit, ok)
	free, size, ok := disk("/")
	number(diskSpaceTotal, float64(size), ok)
	number(diskSpaceFree, float64(free), ok)
	e.mu.Lock()
	for _, name := range []string{committedMemory, freePhysicalMemory, freeSwapSpace, openFiles, systemCPULoad} {
		if s := e.samples[name]; s != nil {
			add(metric{name: name, histogram: s.histogram()}, true)
		}
	}
	e.mu.Unlock()
	if wanted(processes) {
		add(e.processes(processes, "", total, now), true)
	}
	if wanted(ownProcesses) {
		add(e.processes(ownProcesses, strconv.Itoa(os.Getpid()), total, now), true)
	}
	if wanted(packages) {
		add(e.packages())
	}
	return root
}

func (e *Environment) certificates() metric {
	m := metric{name: certificates, set: true}
	if e.cfg.Certificates == nil {
		return m
	}
	for _, c := range e.cfg.Certificates() {
		sum := sha1.Sum(c.Raw) // X-Road's name for it, no proof
		hash := strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
		leaf := func(name, value string) metric { return metric{name: name, text: value, words: true} }
		m.children = append(m.children, metric{name: "certificate-" + hash, set: true, children: []metric{
			leaf("sha1Hash", hash), leaf("notBefore", c.NotBefore.UTC().Format(certificateTime)), leaf("notAfter", c.NotAfter.UTC().Format(certificateTime)),
			leaf("certificateType", c.Type), leaf("active", strconv.FormatBool(c.Active)),
		}})
	}
	return m
}

// fileLimit returns how many files this process may open.
func (e *Environment) fileLimit() (n float64, ok bool) {
	b, err := os.ReadFile(e.proc("self", "limits"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			n, err = strconv.ParseFloat(soft, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// processes lists one process, or all, as ps does.
func (e *Environment) processes(name, only string, memory float64, now time.Time) metric {
	m := metric{name: name, set: true}
	boot := e.boot()
	users := map[string]string{}
	entries, err := os.ReadDir(e.cfg.Proc)
	if err != nil {
		return m
	}
	for _, d := range entries {
		if _, err := strconv.Atoi(d.Name()); err != nil || only != "" && d.Name() != only || len(m.children) == maxListed {
			continue
		}
		if p, ok := e.process(d.Name(), boot, memory, now, users); ok {
			m.children = append(m.children, p)
		}
	}
	return m
}

// boot returns when the machine started.
func (e *Environment) boot() time.Time {
	b, err := os.ReadFile(e.proc("stat"))
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			s, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err == nil {
				return time.Unix(s, 0)
			}
		}
	}
	return time.Time{}
}

func (e *Environment) process(pid string, boot time.Time, memory float64, now time.Time, users map[string]string) (metric, bool) {
	b, err := os.ReadFile(e.proc(pid, "stat"))
	if err != nil {
		return metric{}, false // it has ended
	}
	// The command is in parentheses, and may hold some.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return metric{}, false
	}
	f := strings.Fields(string(b[to+1:])) // from field 3, the state
	if len(f) < 22 {
		return metric{}, false
	}
	n := func(field int) float64 {
		v, err := strconv.ParseFloat(f[field-3], 64)
		if err != nil {
			return 0
		}
		return v
	}
	started := boot.Add(time.Duration(n(22) / ticksPerSecond * float64(time.Second)))
	var cpu, used float64
	if age := now.Sub(started).Seconds(); age > 0 {
		cpu = 100 * (n(14) + n(15)) / ticksPerSecond / age
	}
	if memory > 0 {
		used = 100 * n(24) * float64(os.Getpagesize()) / memory
	}
	start := started.Format("15:04")
	switch {
	case started.Year() != now.Year():
		start = started.Format("2006")
	case started.YearDay() != now.YearDay():
		start = started.Format("Jan02")
	}
	leaf := func(name, value string) metric { return metric{name: name, text: value} }
	return metric{name: pid, set: true, children: []metric{
		leaf("processId", pid), leaf("command", string(b[from+1:to])),
		leaf("cpuLoad", strconv.FormatFloat(cpu, 'f', 1, 64)), leaf("memUsed", strconv.FormatFloat(used, 'f', 1, 64)),
		leaf("startTime", start), leaf("userId", e.owner(pid, users)),
	}}, true
}

// owner returns the name of a process's user, or its number.
func (e *Environment) owner(pid string, users map[string]string) string {
	b, err := os.ReadFile(e.proc(pid, "status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			continue
		}
		uid := f[1] // the effective one
		if _, known := users[uid]; !known {
			users[uid] = uid
			if u, err := user.LookupId(uid); err == nil {
				users[uid] = u.Username
			}
		}
		return users[uid]
	}
	return ""
}

// packages lists what dpkg has installed.
func (e *Environment) packages() (metric, bool) {
	m := metric{name: packages, set: true}
	f, err := os.Open(e.cfg.Packages)
	if err != nil {
		return m, false
	}
	defer f.Close()
	r := bufio.NewScanner(f)
	r.Buffer(nil, 1<<20)
	var name, version string
	installed := false
	end := func() {
		if name != "" && installed && len(m.children) < maxListed {
			m.children = append(m.children, metric{name: name, text: version})
		}
		name, version, installed = "", "", false
	}
	for r.Scan() {
		key, value, _ := strings.Cut(r.Text(), ": ")
		switch {
		case r.Text() == "":
			end()
		case key == "Package":
			name = value
		case key == "Version":
			version = value
		case key == "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	}
	end()
	return m, r.Err() == nil
}
