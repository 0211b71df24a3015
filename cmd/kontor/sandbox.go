// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/cmd/roles"
	"kontor/config"
)

func newSandbox() *cobra.Command {
	var dir string
	var check, processes, demo bool
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a whole ecosystem on this machine: registry, trust services, two gateways, a sample service",
		Long: `Run a whole ecosystem on loopback addresses, without root: a registry
(127.0.0.10), the gateways of two organisations (127.0.0.11 and 127.0.0.12),
trust services (127.0.0.13) and a sample service (127.0.0.14), on X-Road's
default ports. Keys, certificates and registrations are made by the same code
that operators use.

State stays in the folder; a second start resumes it. When all is ready,
sandbox.json in the folder tells where everything is.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := newSandboxIn(dir, c.OutOrStdout())
			if err != nil {
				return err
			}
			s.processes = processes
			return s.run(c.Context(), check, demo)
		},
	}
	c.Flags().StringVar(&dir, "dir", "sandbox", "folder for keys, logs and evidence")
	c.Flags().BoolVar(&check, "check", false, "run one exchange each way, verify its evidence, print a report and stop; exit 0 or 1")
	c.Flags().BoolVar(&processes, "processes", false, "run every role as its own process, started again if it dies")
	c.Flags().BoolVar(&demo, "demo", false, "show one exchange and its evidence before going on")
	return c
}

// sandbox is an ecosystem in one folder.
type sandbox struct {
	dir       string
	out       io.Writer
	processes bool
	roles     []*role
	sample    *sampleService

	mu   sync.Mutex // guards pids and the file that shows them
	pids map[string]int
}

// role is one server of the sandbox.
type role struct {
	name    string // "registry", "gateway-1", …
	command string // "registry", "gateway", "trust"
	config  string
	metrics string
	start   func(context.Context, *zap.Logger) error
}

func newSandboxIn(dir string, out io.Writer) (*sandbox, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &sandbox{dir: dir, out: out, pids: map[string]int{}}, nil
}

func (s *sandbox) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// run starts everything and, unless it only checks, goes on until ctx is done.
func (s *sandbox) run(ctx context.Context, check, demo bool) error {
	began := time.Now()
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.prepare(); err != nil {
		return err
	}
	// Whoever waits for this file must not find that of the last time.
	if err := os.Remove(s.path("sandbox.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.defineRoles(); err != nil {
		return err
	}
	if err := s.claim(); err != nil {
		return err
	}

	// Gateways stop first: they may still need registry and trust services.
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOuter()
	services, outer := errgroup.WithContext(outer)
	inner, stopInner := context.WithCancel(ctx)
	defer stopInner()
	gateways, inner := errgroup.WithContext(inner)

	services.Go(func() error { return s.sample.run(outer) })
	for _, r := range s.roles {
		if r.command != "gateway" {
			services.Go(func() error { return s.runRole(outer, r) })
		}
	}
	fail := func(err error) error {
		stopInner()
		err = errors.Join(gateways.Wait(), err)
		stopOuter()
		return errors.Join(services.Wait(), err)
	}
	for _, r := range s.roles {
		if r.command != "gateway" {
			if err := s.waitReady(outer, r); err != nil {
				return fail(err)
			}
		}
	}
	for _, r := range s.roles {
		if r.command == "gateway" {
			gateways.Go(func() error { return s.runRole(inner, r) })
		}
	}
	for _, r := range s.roles {
		if r.command == "gateway" {
			if err := s.waitReady(inner, r); err != nil {
				return fail(err)
			}
		}
	}
	if err := errors.Join(s.writeExamples(), s.describe()); err != nil {
		return fail(err)
	}
	ready := time.Since(began)

	if check {
		return fail(s.check(inner, ready))
	}
	s.announce(ready)
	if demo {
		if err := s.demonstrate(inner); err != nil {
			return fail(err)
		}
	}
	s.suggest()
	select {
	case <-inner.Done():
	case <-outer.Done():
	}
	if ctx.Err() != nil {
		fmt.Fprintln(s.out, "\nStopping; state stays in "+s.dir)
		return ignoreCancel(fail(nil))
	}
	return fail(nil)
}

func ignoreCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lock keeps a second sandbox out of the folder.
func (s *sandbox) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another sandbox runs in %s; stop it or choose another folder with --dir", s.dir)
	}
	return func() { f.Close() }, nil
}

// claim makes sure that nobody uses the addresses of the sandbox: roles that
// are processes of their own would try again for ever, while those of another
// sandbox answered in their place.
func (s *sandbox) claim() error {
	addresses := []string{sampleAddr}
	for _, r := range s.roles {
		addresses = append(addresses, r.metrics)
	}
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("%w; every sandbox needs the same addresses, so stop the one that runs", err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// defineRoles loads the configuration of every role.
func (s *sandbox) defineRoles() error {
	s.sample = newSampleService(sampleAddr)
	trust := s.path("trust.yaml")
	trustCfg, err := config.LoadTrust(trust)
	if err != nil {
		return err
	}
	reg := s.path("registry.yaml")
	regCfg, err := config.LoadRegistry(reg)
	if err != nil {
		return err
	}
	s.roles = []*role{
		{"trust", "trust", trust, trustCfg.Listen.Metrics, func(ctx context.Context, log *zap.Logger) error {
			return roles.RunTrust(ctx, trustCfg, roles.Options{Log: log})
		}},
		{"registry", "registry", reg, regCfg.Listen.Metrics, func(ctx context.Context, log *zap.Logger) error {
			return roles.RunRegistry(ctx, regCfg, roles.Options{Log: log})
		}},
	}
	for i := range sandboxGateways {
		name := gatewayName(i)
		file := s.path(name + ".yaml")
		cfg, err := config.LoadGateway(file)
		if err != nil {
			return err
		}
		s.roles = append(s.roles, &role{name, "gateway", file, cfg.Listen.Metrics, func(ctx context.Context, log *zap.Logger) error {
			return roles.RunGateway(ctx, cfg, roles.Options{Log: log})
		}})
	}
	return nil
}

// runRole runs one role until ctx is done: here, or as a process of its own
// that is started again when it dies.
func (s *sandbox) runRole(ctx context.Context, r *role) error {
	if err := os.MkdirAll(s.path("logs"), 0o700); err != nil {
		return err
	}
	logFile := s.path("logs", r.name+".log")
	if !s.processes {
		log, err := roles.NewLogger(config.Logging{Level: "info", Format: "json"}, logFile)
		if err != nil {
			return err
		}
		defer log.Sync()
		if err := r.start(ctx, log); err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for {
		out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		cmd := exec.Command(self, r.command, "run", "--config", r.config)
		cmd.Stdout, cmd.Stderr = out, out
		// The terminal's Ctrl-C is for this process, which stops the others in order.
		cmd.SysProcAttr = childAttributes()
		if err := cmd.Start(); err != nil {
			out.Close()
			return err
		}
		s.setPID(r.name, cmd.Process.Pid)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err = <-done:
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
			<-done
			out.Close()
			return nil
		}
		out.Close()
		fmt.Fprintf(s.out, "%s ended (%v); starting it again in a second. Its log: %s\n", r.name, err, logFile)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// waitReady waits until a role says that it can do its job.
func (s *sandbox) waitReady(ctx context.Context, r *role) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	last := "no answer"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.metrics+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // shown only if it stays unready
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = string(b)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not get ready: %s\nIts log: %s", r.name, last, s.path("logs", r.name+".log"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *sandbox) setPID(name string, pid int) {
	s.mu.Lock()
	s.pids[name] = pid
	s.mu.Unlock()
	if _, err := os.Stat(s.path("sandbox.json")); err == nil {
		if err := s.describe(); err != nil {
			fmt.Fprintln(s.out, err)
		}
	}
}

// The file sandbox.json.
type (
	sandboxFile struct {
		Instance string             `json:"instance"`
		Anchor   string             `json:"anchor"`
		Registry sandboxRegistry    `json:"registry"`
		Trust    sandboxTrust       `json:"trust"`
		Gateways []sandboxGateway   `json:"gateways"`
		Clients  []sandboxClient    `json:"clients"`
		Services []sandboxServiceAt `json:"services"`
	}
	sandboxRegistry struct {
		URL     string `json:"url"`
		Admin   string `json:"admin"`
		Metrics string `json:"metrics"`
		Config  string `json:"config"`
		PID     int    `json:"pid"`
	}
	sandboxTrust struct {
		CA      string `json:"ca"`
		OCSP    string `json:"ocsp"`
		TSA     string `json:"tsa"`
		TSACert string `json:"tsa_cert"`
		ACME    string `json:"acme"`
		Metrics string `json:"metrics"`
		Config  string `json:"config"`
		PID     int    `json:"pid"`
	}
	sandboxGateway struct {
		Server      string `json:"server"`
		Consumer    string `json:"consumer"`
		ConsumerTLS string `json:"consumer_tls"`
		Peer        string `json:"peer"`
		OCSP        string `json:"ocsp"`
		Admin       string `json:"admin"`
		Metrics     string `json:"metrics"`
		GovStack    string `json:"govstack"`
		Data        string `json:"data"`
		Config      string `json:"config"`
		PID         int    `json:"pid"`
	}
	sandboxClient struct {
		ID      string `json:"id"`
		Gateway int    `json:"gateway"`
		Allowed bool   `json:"allowed"`
	}
	sandboxServiceAt struct {
		ID      string `json:"id"`
		Gateway int    `json:"gateway"`
		Backend string `json:"backend"`
		Type    string `json:"type"`
		// Description is where its OpenAPI or WSDL document is.
		Description string `json:"description,omitempty"`
	}
)

// describe writes sandbox.json, whole or not at all.
func (s *sandbox) describe() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid := func(name string) int {
		if p := s.pids[name]; p != 0 {
			return p
		}
		return os.Getpid()
	}
	f := sandboxFile{
		Instance: sandboxInstance, Anchor: s.path("anchor.xml"),
		Registry: sandboxRegistry{URL: "http://" + registryAddr, Admin: "https://" + registryAdmin, Metrics: "http://" + registryMetrics + "/metrics",
			Config: s.path("registry.yaml"), PID: pid("registry")},
		Trust: sandboxTrust{CA: s.path("trust", "ca.pem"), OCSP: "http://" + trustAddr + "/ocsp", TSA: "http://" + trustAddr + "/tsa",
			TSACert: s.path("trust", "tsa.pem"), ACME: "https://" + trustACME + "/acme/directory", Metrics: "http://" + trustMetrics + "/metrics", Config: s.path("trust.yaml"), PID: pid("trust")},
		Clients: sandboxClients, Services: []sandboxServiceAt{},
	}
	for i, g := range sandboxGateways {
		name := gatewayName(i)
		f.Gateways = append(f.Gateways, sandboxGateway{
			Server: g.server, Consumer: "http://" + g.ip + ":8080", ConsumerTLS: "https://" + g.ip + ":8443", Peer: g.ip + ":5500",
			OCSP: "http://" + g.ip + ":5577", Admin: "https://" + g.ip + ":4000", Metrics: "http://" + g.ip + ":9100/metrics", GovStack: "http://" + g.ip + ":8088",
			Data: s.path(name), Config: s.path(name + ".yaml"), PID: pid(name)})
	}
	for _, v := range sandboxServices {
		at := sandboxServiceAt{ID: v.id, Gateway: v.gateway, Backend: "http://" + sampleAddr + v.path, Type: v.kind}
		if v.description != "" {
			at.Description = "http://" + sampleAddr + v.description
		}
		f.Services = append(f.Services, at)
	}
	return writeWhole(s.path("sandbox.json"), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	})
}
