// SPDX-License-Identifier: Apache-2.0

// Package world sets up an ecosystem by the commands that operators use and
// runs every role as a process of its own: registry, trust services, and pairs
// of gateways that differ in what is to be compared. It also judges the evidence
// that measurements leave.
//
// Everything that protects is on, in every pair: signatures both ways,
// verification, OCSP, synced message logs on both sides, time-stamps.
package world

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kontor/integration/bench/process"
)

// Config says what to set up.
type Config struct {
	Bin      string   // folder with kontor and kontor-verify
	Dir      string   // folder for everything; on a real disk
	Registry string   // IP address
	Trust    string   // IP address
	Backend  string   // host:port of the service behind every provider
	Env      []string // of gateways
	Pairs    []PairConfig
}

// PairConfig describes a consumer's and a provider's gateway.
type PairConfig struct {
	Name      string
	Algorithm string // of the keys, as in EC-P256
	Transport string // of the tunnels: https or quic; empty: the default
	Batch     string // signing.batch; empty: its default
	NoBodies  bool   // message bodies are not logged
	IP        [2]string
	Control   [2]string // IP addresses for information systems, metrics and administration; empty: those of IP
	NetNS     [2]string
	Lossy     bool // the line between them loses packets: exchanges may change their transport
}

// World is an ecosystem that runs.
type World struct {
	Config
	Pairs []*Pair
	procs []*process.Process // in the order of their start
}

// Pair is two gateways that run: the consumer's and the provider's.
type Pair struct {
	PairConfig
	Client   string // as in BENCH/GOV/1000/consumer
	REST     string // the service, likewise
	SOAP     string
	Gateways [2]*Gateway
	world    *World
}

// Gateway is one security server.
type Gateway struct {
	*process.Process
	Server  string
	Config  string       // file
	Data    string       // folder
	control string       // IP address
	spec    process.Spec // to start it again
}

// StampInterval is how often records are time-stamped: often enough to happen
// within every measurement.
const StampInterval = time.Second

const instance = "BENCH"

// Start sets up the ecosystem and waits until every gateway is ready. Stop it
// even after an error.
func Start(ctx context.Context, c Config) (*World, error) {
	w := &World{Config: c}
	for i, p := range c.Pairs {
		pair := &Pair{PairConfig: p, world: w,
			Client: fmt.Sprintf("%s/GOV/%d/consumer", instance, 1000+i), REST: fmt.Sprintf("%s/GOV/%d/provider/rest", instance, 2000+i)}
		pair.SOAP = strings.TrimSuffix(pair.REST, "rest") + "answer"
		for side := range 2 {
			pair.Gateways[side] = &Gateway{Server: fmt.Sprintf("%s/GOV/%d/ss", instance, 1000*(side+1)+i), control: cmp.Or(p.Control[side], p.IP[side]),
				Config: filepath.Join(c.Dir, pair.gatewayName(side)+".yaml"), Data: filepath.Join(c.Dir, pair.gatewayName(side))}
		}
		w.Pairs = append(w.Pairs, pair)
	}
	return w, w.start(ctx)
}

func (p *Pair) gatewayName(side int) string {
	return strings.ReplaceAll(p.Name, " ", "-") + "-" + []string{"consumer", "provider"}[side]
}

func (w *World) start(ctx context.Context) error {
	taken := []string{w.Registry + ":8080", w.Registry + ":9101", w.Trust + ":8888", w.Trust + ":9102"}
	for _, p := range w.Pairs {
		for side, g := range p.Gateways {
			if p.NetNS[side] == "" {
				taken = append(taken, p.IP[side]+":5500", g.control+":8080", g.control+":9100")
			}
		}
	}
	if err := process.Free(taken...); err != nil {
		return err
	}
	if err := w.writeConfigs(); err != nil {
		return err
	}
	if err := w.kontor(ctx, "trust", "init", "--config", w.path("trust.yaml"), "--instance", instance, "--name", "Bench CA"); err != nil {
		return err
	}
	if err := w.run(ctx, "trust", w.Trust+":9102"); err != nil {
		return err
	}
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return w.kontor(workCtx, "registry", "init", "--config", w.path("registry.yaml")) })
	for _, p := range w.Pairs {
		for side := range 2 {
			work.Go(func() error { return w.initGateway(workCtx, p, side) })
		}
	}
	if err := work.Wait(); err != nil {
		return err
	}
	if err := w.run(ctx, "registry", w.Registry+":9101"); err != nil {
		return err
	}
	anchor, err := w.output(ctx, "kontor", "registry", "anchor", "--config", w.path("registry.yaml"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.Anchor(), anchor, 0o644); err != nil {
		return err
	}
	gateways, gatewaysCtx := errgroup.WithContext(ctx)
	for _, p := range w.Pairs {
		for side := range 2 {
			g := p.Gateways[side]
			g.spec = process.Spec{Name: p.gatewayName(side), NetNS: p.NetNS[side], Env: w.Env, Log: w.path("logs", p.gatewayName(side)+".log"),
				Args: []string{filepath.Join(w.Bin, "kontor"), "gateway", "run", "--config", g.Config}}
			if err := g.Start(); err != nil {
				return err
			}
			gateways.Go(func() error { return g.WaitReady(gatewaysCtx) })
		}
	}
	if err := gateways.Wait(); err != nil {
		return err
	}
	for _, p := range w.Pairs {
		if err := p.prime(ctx); err != nil {
			return fmt.Errorf("%s: %w; the logs are in %s", p.Name, err, w.path("logs"))
		}
	}
	return nil
}

// prime makes exchanges until one goes over the transport that is to be
// measured: gateways find out by the first what their peer can do.
func (p *Pair) prime(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		before, err := p.Count(ctx)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr()+"/r1/"+p.REST+"/bytes/1", nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Road-Client", p.Client)
		if err := ask(req, io.Discard); err != nil {
			return err
		}
		after, err := p.Count(ctx)
		if err != nil {
			return err
		}
		if p.Transport == "" || after.Over[p.Transport] > before.Over[p.Transport] {
			return nil
		}
	}
}

// Start starts the gateway.
func (g *Gateway) Start() (err error) {
	g.Process, err = process.Start(g.spec)
	return err
}

// WaitReady waits until the gateway says that it can do its job.
func (g *Gateway) WaitReady(ctx context.Context) error {
	return waitReady(ctx, g.Process, g.control+":9100")
}

// Stop ends all processes.
func (w *World) Stop() error {
	var gateways sync.WaitGroup
	failed := make([]error, 2*len(w.Pairs))
	for i, p := range w.Pairs {
		for side, g := range p.Gateways {
			if g.Process != nil {
				gateways.Go(func() { failed[2*i+side] = g.Process.Stop() })
			}
		}
	}
	gateways.Wait()
	return errors.Join(errors.Join(failed...), process.StopAll(w.procs))
}

// Anchor is the file of the configuration anchor.
func (w *World) Anchor() string { return w.path("anchor.xml") }

func (w *World) path(elem ...string) string {
	return filepath.Join(append([]string{w.Dir}, elem...)...)
}

// run starts the registry or the trust services.
func (w *World) run(ctx context.Context, role, metrics string) error {
	p, err := process.Start(process.Spec{Name: role, Log: w.path("logs", role+".log"),
		Args: []string{filepath.Join(w.Bin, "kontor"), role, "run", "--config", w.path(role + ".yaml")}})
	if err != nil {
		return err
	}
	w.procs = append(w.procs, p)
	return waitReady(ctx, p, metrics)
}

func (w *World) initGateway(ctx context.Context, p *Pair, side int) error {
	g, name := p.Gateways[side], p.gatewayName(side)
	if err := w.kontor(ctx, "gateway", "init", "--config", g.Config, "--algorithm", p.Algorithm, "--member-name", name, "--dns-name", name+".example", "--country", "FI"); err != nil {
		return err
	}
	auth, sign := w.path("certificates", name+".auth.pem"), w.path("certificates", name+".sign.pem")
	for usage, files := range map[string][2]string{"authentication": {"auth.csr.pem", auth}, "signing": {"sign.csr.pem", sign}} {
		if err := w.kontor(ctx, "trust", "issue", "--config", w.path("trust.yaml"), "--usage", usage, "--csr", filepath.Join(g.Data, files[0]), "--out", files[1]); err != nil {
			return err
		}
	}
	if err := w.kontor(ctx, "gateway", "import", "--config", g.Config, auth, sign); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.Data, "serverconf.yaml"), w.serverConf(p, side), 0o600)
}

// kontor runs a command to its end.
func (w *World) kontor(ctx context.Context, args ...string) error {
	_, err := w.output(ctx, "kontor", args...)
	return err
}

func (w *World) output(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, program), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// readyPatience is how long a role may take to become ready: machines are loaded.
const readyPatience = time.Minute

func waitReady(ctx context.Context, p *process.Process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		last := get(ctx, "http://"+address+"/readyz", io.Discard)
		if last == nil {
			return nil
		}
		if err := p.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not get ready: %w; its log is %s", p.Name, last, p.Log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// plain asks without keeping connections: those of the metrics would only stand
// around.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func get(ctx context.Context, url string, to io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return ask(req, to)
}

func ask(req *http.Request, to io.Writer) error {
	resp, err := plain.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // only to help
		return fmt.Errorf("%s: %s: %s", req.URL, resp.Status, bytes.TrimSpace(b))
	}
	_, err = io.Copy(to, resp.Body)
	return err
}

// Metrics reads the gateway's metrics, by name and labels as they are written.
func (g *Gateway) Metrics(ctx context.Context) (map[string]float64, error) {
	var b bytes.Buffer
	if err := get(ctx, "http://"+g.control+":9100/metrics", &b); err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for s := bufio.NewScanner(&b); s.Scan(); {
		i := strings.LastIndexByte(s.Text(), ' ')
		if i < 0 || s.Text()[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(s.Text()[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", s.Text(), err)
		}
		all[s.Text()[:i]] = v
	}
	return all, nil
}

// Profile writes a CPU profile of the gateway over a time to a file.
func (g *Gateway) Profile(ctx context.Context, length time.Duration, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(get(ctx, fmt.Sprintf("http://%s:9100/debug/pprof/profile?seconds=%d", g.control, int(length.Seconds())), f), f.Close())
}

// Addr is where the consumer's gateway takes requests: host:port.
func (p *Pair) Addr() string { return p.Gateways[0].control + ":8080" }
