// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/x509"
	"net"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/config"
	"kontor/gateway"
	"kontor/gateway/admin"
	"kontor/gateway/opmonitor"
	"kontor/gateway/serverconf"
	"kontor/gateway/tracing"
	"kontor/pki"
	"kontor/registry/id"
)

// monitoring is what a gateway tells of itself and its exchanges.
type monitoring struct {
	store    *opmonitor.Store // nil: off
	machine  *opmonitor.Environment
	services []gateway.Builtin
	tracer   *tracing.Tracer // nil: off
}

func newMonitoring(ctx context.Context, cfg *config.Gateway, token *pki.Token, conf *serverconf.Store, internal *x509.Certificate,
	now func() time.Time, log *zap.Logger) (*monitoring, error) {
	m := &monitoring{}
	var err error
	if t := cfg.Tracing; t.Endpoint != "" || t.Propagate {
		m.tracer, err = tracing.New(ctx, tracing.Config{Endpoint: t.Endpoint, Sample: t.Sample, Server: cfg.Server.String(), Version: gateway.Version, Log: log.Named("tracing")})
		if err != nil {
			return nil, err
		}
	}
	o := cfg.OperationalMonitoring
	if !o.Enabled {
		return m, nil
	}
	m.store, err = opmonitor.Open(opmonitor.Config{
		Dir: filepath.Join(cfg.DataDir, "operational"), Keep: o.Keep, MaxBytes: int64(o.MaxSize), InternalIP: internalAddress(cfg.Address),
		Endpoint: func(service id.Service, method, path string) string {
			s, ok := conf.Conf().Service(service)
			if !ok {
				return ""
			}
			e, _ := s.Endpoint(method, path)
			return e.Path
		},
		Now: now, Log: log.Named("operational"),
	})
	if err != nil {
		return nil, err
	}
	m.machine = opmonitor.NewEnvironment(opmonitor.EnvironmentConfig{Now: now, Certificates: func() []opmonitor.Certificate {
		all := []opmonitor.Certificate{{Certificate: internal, Type: opmonitor.SecurityServerTLS, Active: true}}
		for _, k := range token.Keys() {
			for _, c := range k.Certificates() {
				all = append(all, opmonitor.Certificate{Certificate: c.Cert, Type: opmonitor.AuthOrSign, Active: c.Status.Active})
			}
		}
		for _, client := range conf.Conf().Clients() {
			for _, c := range client.Certificates {
				all = append(all, opmonitor.Certificate{Certificate: c, Type: opmonitor.InternalISClientTLS, Active: true})
			}
		}
		return all
	}})
	m.services = gateway.MonitoringServices(opmonitor.NewServices(m.store, opmonitor.ServicesConfig{
		Offset: o.AvailableAfter, MaxRecords: o.MaxRecords, Server: cfg.Server, Version: gateway.Version, Machine: m.machine, Now: now,
	}), o.LimitRemote)
	return m, nil
}

// operational returns the operational data for the administration API.
func (m *monitoring) operational() admin.OperationalData {
	if m.store == nil {
		return nil
	}
	return m.store
}

// run keeps the monitoring going until ctx is done.
func (m *monitoring) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if m.store != nil {
		g.Go(func() error { return m.store.Run(ctx) })
		g.Go(func() error { return m.machine.Run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return m.tracer.Close(last)
	})
	return g.Wait()
}

// register exposes what operators must know of the operational data.
func (m *monitoring) register(r *prometheus.Registry) {
	if m.store == nil {
		return
	}
	count := func(name, help string, value func(opmonitor.Stats) float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(m.store.Stats()) }))
	}
	count("kontor_operational_records_total", "Records of operational data written.", func(s opmonitor.Stats) float64 { return float64(s.Stored) })
	count("kontor_operational_lost_total", "Records of operational data that were lost: too many at once, or the disk took none.", func(s opmonitor.Stats) float64 { return float64(s.Lost) })
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kontor_operational_bytes", Help: "Size of the operational data."},
		func() float64 { return float64(m.store.Stats().Bytes) }))
}

// internalAddress returns the address of this machine in its own network: the
// one that is configured, else the first of the first interface that has one
// that others can reach, IPv4 before IPv6 (X-Road chooses so).
func internalAddress(configured string) string {
	if configured != "" {
		return configured
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return "0.0.0.0" // as X-Road writes it
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		best := ""
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || n.IP.IsLoopback() || n.IP.IsLinkLocalUnicast() {
				continue
			}
			if n.IP.To4() != nil {
				return n.IP.String()
			}
			if best == "" {
				best = n.IP.String()
			}
		}
		if best != "" {
			return best
		}
	}
	return "0.0.0.0"
}
