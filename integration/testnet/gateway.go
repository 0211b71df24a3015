// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/msglog"
	"kontor/gateway/serverconf"
	"kontor/pki/tsa"
)

// Gateway is one security server of the network.
type Gateway struct {
	n    *Network
	Name string
	ip   string
	Cfg  config.Gateway // in force from the next start

	clock atomic.Int64 // offset against the network's clock
	logs  *observer.ObservedLogs
	core  zapcore.Core

	mu     sync.Mutex
	cancel context.CancelFunc // nil: stopped
	done   chan error
}

// hangup keeps a hang-up from ending the test binary while no gateway listens
// for it.
var hangup = sync.OnceFunc(func() { signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) })

func (n *Network) newGateway(name, server, ip, prepared string, change func(string, *config.Gateway)) *Gateway {
	n.tb.Helper()
	hangup()
	dir := filepath.Join(n.dir, name)
	if err := copyTree(dir, prepared); err != nil {
		n.tb.Fatal(err)
	}
	g := &Gateway{n: n, Name: name, ip: ip}
	c := &g.Cfg
	c.Server, c.DataDir, c.PINFile = n.ServerID(server), dir, filepath.Join(dir, "pin")
	c.Anchor, c.Address = n.anchorFile(), ip
	c.Listen.Consumer, c.Listen.ConsumerTLS = ip+":8080", ip+":8443"
	c.Listen.Peer, c.Listen.OCSP = ip+":5500", ip+":5577"
	c.Listen.Metrics = ip + ":9100"
	c.Peers.Port, c.Peers.OCSPPort = 5500, 5577
	c.Tunnel.Transport, c.Tunnel.StreamWindow, c.Tunnel.ConnectionWindow = "auto", 16<<20, 48<<20
	c.GlobalConf.Interval = pollInterval
	c.MessageLog.Bodies = true
	c.MessageLog.MaxBody, c.MessageLog.InlineBody, c.MessageLog.DiskReserve = 16<<20, 64<<10, 1<<20
	c.MessageLog.StampInterval, c.MessageLog.StampGrace = 100*time.Millisecond, 4*time.Hour
	c.Limits.Exchanges, c.Limits.Idle, c.Limits.Answer = 64, time.Minute, time.Minute
	if change != nil {
		change(name, c)
	}
	g.core, g.logs = observer.New(zap.DebugLevel)
	store, err := serverconf.Open(serverconf.Config{Path: c.ServerConf()})
	if err != nil {
		n.tb.Fatal(err)
	}
	err = store.Update(func(m *serverconf.Model) error { m.Clients = n.serverConf(name); return nil })
	if err != nil {
		n.tb.Fatal(err)
	}
	return g
}

// start starts a gateway and, if it can be, waits until it is ready.
func (g *Gateway) start(ready bool) {
	g.n.tb.Helper()
	cfg := g.Cfg
	ctx, cancel := context.WithCancel(context.Background())
	listening, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- roles.RunGateway(ctx, &cfg, roles.Options{Log: zap.New(g.core), Now: g.Now, Ready: func() { close(listening) }})
	}()
	select {
	case <-listening:
	case err := <-done:
		cancel()
		g.n.tb.Fatalf("gateway %s: %v", g.Name, err)
	}
	g.mu.Lock()
	g.cancel, g.done = cancel, done
	g.mu.Unlock()
	if ready {
		g.WaitReady()
	}
}

// WaitReady waits until the gateway calls itself ready.
func (g *Gateway) WaitReady() {
	g.n.tb.Helper()
	Eventually(g.n.tb, func() error {
		status, body, err := g.get("/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("gateway %s is not ready: %s", g.Name, body)
		}
		return err
	})
}

// Stop stops the gateway; a stopped one may be stopped again.
func (g *Gateway) Stop() {
	g.n.tb.Helper()
	g.mu.Lock()
	cancel, done := g.cancel, g.done
	g.cancel = nil
	g.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			g.n.tb.Errorf("gateway %s: %v", g.Name, err)
		}
	case <-time.After(time.Minute):
		g.n.tb.Errorf("gateway %s does not stop", g.Name)
	}
}

// Restart stops the gateway and starts it with a configuration that change has
// changed, if it is not nil.
func (g *Gateway) Restart(change func(*config.Gateway)) {
	g.n.tb.Helper()
	g.Stop()
	if change != nil {
		change(&g.Cfg)
	}
	g.start(true)
}

func (g *Gateway) running() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cancel != nil
}

// Now is the gateway's clock.
func (g *Gateway) Now() time.Time { return g.n.Now().Add(time.Duration(g.clock.Load())) }

// Advance moves this gateway's clock alone. It may be called from anywhere.
func (g *Gateway) Advance(d time.Duration) { g.clock.Add(int64(d)) }

// IP is the gateway's address.
func (g *Gateway) IP() string { return g.ip }

// Logged returns the log entries with that message.
func (g *Gateway) Logged(message string) []observer.LoggedEntry {
	return g.logs.FilterMessage(message).All()
}

// LogText returns everything that was logged, as text.
func (g *Gateway) LogText() string {
	var b bytes.Buffer
	for _, e := range g.logs.All() {
		fmt.Fprintln(&b, e.Level, e.LoggerName, e.Message, e.ContextMap())
	}
	return b.String()
}

// Configure changes clients, services and rights.
func (g *Gateway) Configure(change func(*serverconf.Model)) {
	g.n.tb.Helper()
	store, err := serverconf.Open(serverconf.Config{Path: g.Cfg.ServerConf()})
	if err != nil {
		g.n.tb.Fatal(err)
	}
	if err := store.Update(func(m *serverconf.Model) error { change(m); return nil }); err != nil {
		g.n.tb.Fatal(err)
	}
	if !g.running() {
		return
	}
	// The first reload may have begun before the change, for another's sake.
	for range 2 {
		reloads := func() int { return len(g.Logged("clients and services reloaded")) }
		before := reloads()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			g.n.tb.Fatal(err)
		}
		Eventually(g.n.tb, func() error {
			if reloads() == before {
				return errors.New("the gateway does not reload")
			}
			return nil
		})
	}
}

// Entry finds a client in the file.
func Entry(m *serverconf.Model, client string) *serverconf.ClientEntry {
	for i := range m.Clients {
		if m.Clients[i].ID == ClientID(client) {
			return &m.Clients[i]
		}
	}
	panic("no client " + client)
}

// get asks the metrics listener.
func (g *Gateway) get(path string) (int, []byte, error) {
	resp, err := http.Get("http://" + g.Cfg.Listen.Metrics + path)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// Metric returns the value of a metric without labels.
func (g *Gateway) Metric(name string) float64 {
	g.n.tb.Helper()
	_, b, err := g.get("/metrics")
	if err != nil {
		g.n.tb.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(b)
	if m == nil {
		g.n.tb.Fatalf("gateway %s has no metric %s", g.Name, name)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		g.n.tb.Fatal(err)
	}
	return v
}

// Records is the number of records in the message log.
func (g *Gateway) Records() int {
	g.n.tb.Helper()
	return int(g.Metric("kontor_log_records"))
}

// SpoolFiles are the bodies that wait for their end on disk.
func (g *Gateway) SpoolFiles() []string {
	g.n.tb.Helper()
	var files []string
	root := filepath.Join(g.Cfg.DataDir, "messagelog")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err == nil && d.Type().IsRegular() && filepath.Ext(path) == ".spool" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		g.n.tb.Fatal(err)
	}
	return files
}

// openLog opens the message log of a stopped gateway.
func (g *Gateway) openLog() *msglog.Log {
	g.n.tb.Helper()
	l, err := msglog.Open(msglog.Config{Dir: filepath.Join(g.Cfg.DataDir, "messagelog"),
		Stamp: func(context.Context, []byte) (*tsa.Token, error) { return nil, errors.New("not here") }})
	if err != nil {
		g.n.tb.Fatalf("message log of gateway %s: %v", g.Name, err)
	}
	return l
}

// checkLog reads the whole log of a stopped gateway.
func (g *Gateway) checkLog() {
	g.n.tb.Helper()
	l := g.openLog()
	defer l.Close()
	report, err := l.Check(context.Background())
	if err != nil {
		g.n.tb.Errorf("message log of gateway %s: %v", g.Name, err)
		return
	}
	for _, p := range report.Problems {
		g.n.tb.Errorf("message log of gateway %s: %s", g.Name, p)
	}
	if files := g.SpoolFiles(); len(files) > 0 {
		g.n.tb.Errorf("gateway %s left %v", g.Name, files)
	}
}
