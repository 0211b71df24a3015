// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/config"
	"kontor/gateway"
	"kontor/gateway/admin"
	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/metaservice"
	"kontor/gateway/msglog"
	"kontor/gateway/renewal"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/gateway/tunnel"
	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/enrol"
	"kontor/pki/ocsp"
	"kontor/pki/tsa"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func tokenDir(cfg *config.Gateway) string { return filepath.Join(cfg.DataDir, "token") }

// Requests are the files of certificate requests that InitGateway writes.
type Requests struct{ Auth, Sign string }

// InitGateway makes token, keys, requests, internal TLS certificate and an
// empty list of clients.
func InitGateway(cfg *config.Gateway, profile pki.Profile, alg pki.Algorithm, params pki.SubjectParams) (*Requests, error) {
	pin, err := NewSecret(cfg.PINFile, "pin_file")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	release, err := holdGateway(cfg)
	if errors.Is(err, ErrRunning) {
		return nil, fmt.Errorf("%w; use kontor key generate and kontor cert request", err)
	}
	if err != nil {
		return nil, err
	}
	defer release()
	token, err := pki.CreateToken(tokenDir(cfg), pin)
	if err != nil {
		return nil, err
	}
	out := &Requests{filepath.Join(cfg.DataDir, "auth.csr.pem"), filepath.Join(cfg.DataDir, "sign.csr.pem")}
	for _, k := range []struct {
		usage   pki.Usage
		file    string
		subject func(pki.SubjectParams) ([]byte, error)
	}{{pki.Authentication, out.Auth, profile.AuthSubject}, {pki.Signing, out.Sign, profile.SignSubject}} {
		subject, err := k.subject(params)
		if err != nil {
			return nil, err
		}
		key, err := token.Generate(string(k.usage), k.usage, alg)
		if err != nil {
			return nil, err
		}
		var dns []string
		if params.DNSName != "" {
			dns = []string{params.DNSName}
		}
		csr, err := key.CSR(subject, dns)
		if err != nil {
			return nil, err
		}
		if err := WritePEM(k.file, "CERTIFICATE REQUEST", csr); err != nil {
			return nil, err
		}
	}
	if err := newInternalTLS(cfg); err != nil {
		return nil, err
	}
	if _, err := serverconf.Create(serverconf.Config{Path: cfg.ServerConf()}, &serverconf.Model{}); err != nil {
		return nil, err
	}
	return out, newAdminKey(cfg)
}

// ImportCertificates gives certificates to their keys, which it returns in the
// same order, and activates them. It stops at the first that is refused.
func ImportCertificates(cfg *config.Gateway, certs ...*x509.Certificate) ([]*pki.Key, error) {
	release, err := holdGateway(cfg)
	if errors.Is(err, ErrRunning) {
		return nil, fmt.Errorf("%w; use kontor cert import", err)
	}
	if err != nil {
		return nil, err
	}
	defer release()
	token, err := openToken(cfg)
	if err != nil {
		return nil, err
	}
	var keys []*pki.Key
	for _, c := range certs {
		state := pki.StateRegistered
		if pki.IsAuthCert(c) {
			state = pki.StateSaved // until the registry lists it
		}
		key, err := token.AddCertificate(c, pki.CertStatus{State: state, Active: true})
		if err != nil {
			return keys, fmt.Errorf("certificate of %s: %w", c.Subject, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// The internal TLS certificate is what information systems and administrators
// see; they pin it.
func InternalTLSFiles(cfg *config.Gateway) (cert, key string) {
	return filepath.Join(cfg.DataDir, "internal.pem"), filepath.Join(cfg.DataDir, "internal.key")
}

func newInternalTLS(cfg *config.Gateway) error {
	certFile, keyFile := InternalTLSFiles(cfg)
	return newServerCertificate(certFile, keyFile, cfg.Server.Code(), cfg.Listen.Admin, cfg.Listen.ConsumerTLS)
}

// RunGateway runs a security server until ctx is done.
func RunGateway(ctx context.Context, cfg *config.Gateway, o Options) error {
	log, now := o.withDefaults()
	release, err := holdGateway(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; run kontor gateway init first", err)
	}
	if err != nil {
		return err
	}
	defer release()
	token, err := openToken(cfg)
	if errors.Is(err, pki.ErrNoToken) {
		return fmt.Errorf("%w; run kontor gateway init first", err)
	}
	if err != nil {
		return err
	}
	internal, err := tls.LoadX509KeyPair(InternalTLSFiles(cfg))
	if err != nil {
		return fmt.Errorf("internal TLS certificate: %w", err)
	}
	conf, err := serverconf.Open(serverconf.Config{Path: cfg.ServerConf(), Internal: &internal, Now: now})
	if err != nil {
		return err
	}

	dialer := &net.Dialer{Timeout: 30 * time.Second}
	if cfg.Address != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(cfg.Address)}
	}
	web := &http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
	global, err := globalconf.NewClient(globalconf.ClientConfig{
		AnchorFile: cfg.Anchor, Dir: filepath.Join(cfg.DataDir, "globalconf"), HTTP: web,
		Interval: cfg.GlobalConf.Interval, AllowedFederations: cfg.GlobalConf.Federations, Now: now, Log: log.Named("globalconf"),
	})
	if err != nil {
		return err
	}
	if err := firstUpdate(ctx, global, now()); err != nil && ctx.Err() == nil {
		log.Warn("the global configuration could not be downloaded; trying on", zap.Error(err))
	}

	batching, err := signer.ParseBatching(cfg.Signing.Batch)
	if err != nil {
		return err
	}
	keys, err := signer.New(signer.Config{
		Batching: batching,
		Token:    token, OCSP: ocsp.NewClient(ocsp.ClientConfig{HTTP: web, Now: now}), View: global.View, Server: cfg.Server,
		Dir: filepath.Join(cfg.DataDir, "ocsp"), Now: now, Log: log.Named("signer"),
	})
	if err != nil {
		return err
	}
	peers := tunnel.NewVerifier(tunnel.VerifierConfig{Now: now})
	identity := func(view *globalconf.View) (*tls.Certificate, error) {
		auth, err := keys.Auth(view)
		if err != nil {
			return nil, err
		}
		return &auth.Certificate, nil
	}
	transport, err := tunnel.ParseTransport(cfg.Tunnel.Transport)
	if err != nil {
		return err
	}
	tunnels := tunnel.NewMetrics()
	client, err := tunnel.NewClient(tunnel.ClientConfig{
		Identity: identity, Verifier: peers, Port: cfg.Peers.Port, OCSPPort: cfg.Peers.OCSPPort, Dial: dialer.DialContext, Now: now,
		Transport: transport, Windows: windows(cfg), Connections: cfg.Tunnel.Connections, OCSP: keys.OCSP, DialUDP: tunnel.DialUDP(net.ParseIP(cfg.Address)), Metrics: tunnels,
	})
	if err != nil {
		return err
	}
	defer client.Close()

	metrics := prometheus.NewRegistry()
	syncs := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kontor_log_sync_seconds", Help: "Duration of the message log's flushes to disk.",
		Buckets: prometheus.ExponentialBuckets(.0001, 2, 16)})
	messages, err := msglog.Open(msglog.Config{
		Dir: filepath.Join(cfg.DataDir, "messagelog"), Stamp: stamper(cfg, global, web, now), HasTSA: func() bool { return len(approvedTSAs(cfg, global.View())) > 0 },
		Interval: stampInterval(cfg, global), MinInterval: cfg.MessageLog.StampInterval, RetryInterval: cfg.MessageLog.StampInterval,
		FailurePeriod: orNever(cfg.MessageLog.StampGrace), BodyPolicy: bodyPolicy(cfg), Reserve: reserve(cfg),
		Retention:   msglog.Retention{Keep: cfg.MessageLog.Keep, ArchiveDir: cfg.MessageLog.ArchiveDir},
		ObserveSync: func(d time.Duration) { syncs.Observe(d.Seconds()) }, Now: now, Log: log.Named("messagelog"),
	})
	if err != nil {
		return err
	}
	defer messages.Close()

	watch, err := newMonitoring(ctx, cfg, token, conf, internal.Leaf, now, log)
	if err != nil {
		return err
	}
	measures := gateway.NewMetrics()
	gw, err := gateway.New(gateway.Config{
		Server: cfg.Server, View: global.View, Conf: conf, Signer: keys, Tunnel: client, Peers: peers, Log: messages,
		Spool: &message.Spool{Dir: messages.SpoolDir(), MemoryLimit: int64(cfg.MessageLog.InlineBody),
			MaxSize: int64(cfg.MessageLog.MaxBody), Reserve: reserve(cfg)},
		Verifier: asic.NewVerifier(now), Builtins: append(metaservice.Builtins(), watch.services...), Records: watch.store, Tracer: watch.tracer,
		Faults:  fault.Style(cfg.Faults.Style),
		Limits:  gateway.Limits{Exchanges: cfg.Limits.Exchanges, Idle: cfg.Limits.Idle, Answer: cfg.Limits.Answer},
		Metrics: measures, Logger: log, Now: now,
	})
	if err != nil {
		return err
	}
	peerHandler, offered := http.Handler(http.HandlerFunc(gw.ServeServer)), 0
	var overQUIC *quicListener
	if transport != tunnel.HTTPS {
		overQUIC, err = listenQUIC(cfg, tunnel.ServerConfig{
			Handler: peerHandler, Identity: identity, View: global.View, Verifier: peers, OCSP: keys.OCSP, Metrics: tunnels, Log: log.Named("listen.peer"),
		})
		if err != nil {
			return err
		}
		defer overQUIC.socket.Close()
		offered = cfg.Peers.Port // under which peers reach us: the same for all, whatever the address here
	}
	own := newOwnClient()
	responder := new(enrol.Responder)
	renewals, accounts, err := newRenewals(cfg, renewal.Config{Token: token, Signer: keys, View: global.View, Responder: responder, Now: now, Log: log.Named("acme")})
	if err != nil {
		return err
	}
	administration, err := newAdmin(cfg, accounts, admin.Config{Token: token, Signer: keys, Conf: conf, View: global.View, GlobalConf: global.Stats, Renewal: renewals, Manage: own.client(),
		Log: messages, Operational: watch.operational(), Logger: log.Named("admin"), Now: now})
	if err != nil {
		return err
	}
	defer administration.Audit.Close()
	metrics.MustRegister(measures, tunnels, syncs)
	registerState(metrics, messages, global, keys)
	watch.register(metrics)

	// The log outlives the listeners: exchanges under way are still written.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	tasks, failed := errgroup.WithContext(background)
	tasks.Go(func() error { return messages.Run(background) })
	tasks.Go(func() error { return keys.Run(background) })
	tasks.Go(func() error { return global.Run(background) })
	tasks.Go(func() error { return watch.run(background) })
	tasks.Go(func() error { return administration.Run(background) })
	tasks.Go(func() error { return own.run(background, http.HandlerFunc(gw.ServeClient), internal.Leaf) })
	// A renewal is durable at every step; it need not outlive the listeners.
	g.Go(func() error { return renewals.Run(ctx, administration) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-failed.Done(): // the error itself is that of tasks
			return errors.New("the gateway cannot go on and stops")
		}
	})
	if overQUIC != nil {
		g.Go(func() error { return overQUIC.run(ctx) })
	}
	g.Go(func() error { return reloadOnHangup(ctx, log, conf) })
	g.Go(func() error {
		return serve(ctx, log, []endpoint{
			{key: "listen.consumer", addr: cfg.Listen.Consumer, handler: consumerHandler(gw, messages, conf, fault.Style(cfg.Faults.Style), log)},
			{key: "listen.consumer_tls", addr: cfg.Listen.ConsumerTLS, handler: consumerHandler(gw, messages, conf, fault.Style(cfg.Faults.Style), log),
				tls: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{internal}, ClientAuth: tls.RequestClientCert}},
			{key: "listen.peer", addr: cfg.Listen.Peer, handler: tunnel.HTTPSHandler(peerHandler, offered, tunnels), tls: tunnel.ServerTLS(identity, global.View),
				change: func(srv *http.Server) {
					tunnel.ServeLinks(srv, tunnel.LinkConfig{Windows: windows(cfg), Metrics: tunnels, Log: log.Named("listen.peer")})
				}},
			{key: "listen.ocsp", addr: cfg.Listen.OCSP, handler: tunnel.OCSPHandler(keys.OCSP)},
			{key: "listen.admin", addr: cfg.Listen.Admin, handler: administration,
				tls: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{internal}}},
			{key: "govstack.listen", addr: cfg.GovStack.Listen, handler: metaservice.GovStack(metaservice.GovStackConfig{View: gw.View,
				Client: http.HandlerFunc(gw.ServeClient), Known: registered(conf), Default: cfg.GovStack.Client})},
			{key: "acme.listen", addr: challenges(cfg), handler: responder},
			{key: "listen.metrics", addr: cfg.Listen.Metrics, handler: observe(metrics, gatewayChecks(global, keys, messages, now))},
		}, o.Ready)
	})
	err = g.Wait()
	if e := gw.Wait(background); err == nil {
		err = e
	}
	stop()
	return errors.Join(err, tasks.Wait())
}

// startPatience is how long a gateway waits for a newer global configuration
// before it starts with a valid one from its disk.
const startPatience = 3 * time.Second

// firstUpdate asks for the global configuration before anything is served.
func firstUpdate(ctx context.Context, global *globalconf.Client, now time.Time) error {
	if view := global.View(); view != nil && view.Valid(now) == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startPatience)
		defer cancel()
	}
	return global.Update(ctx)
}

// consumerHandler serves local information systems: messages, signed documents,
// and who is in the network.
func consumerHandler(gw *gateway.Gateway, messages *msglog.Log, conf *serverconf.Store, spelling fault.Style, log *zap.Logger) http.Handler {
	asicHandler := msglog.Handler(msglog.HandlerConfig{Log: messages, Logger: log.Named("asic"),
		Authenticate: func(r *http.Request, client id.Client) error {
			var peer *x509.Certificate
			if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
				peer = r.TLS.PeerCertificates[0]
			}
			return conf.Conf().AuthenticateClient(client, r.TLS != nil, peer)
		}})
	documents := map[string]http.Handler{
		"/asic": asicHandler, "/listClients": metaservice.ListClients(gw.View, spelling), "/verificationconf": metaservice.VerificationConf(gw.View, spelling),
	}
	// Not a ServeMux: it cleans paths, and those of messages are not ours to clean.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := documents[r.URL.Path]; h != nil && r.Method == http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		gw.ServeClient(w, r)
	})
}

// registered tells which clients may exchange messages here.
func registered(conf *serverconf.Store) func(id.Client) bool {
	return func(c id.Client) bool {
		client, ok := conf.Conf().Client(c)
		return ok && client.Registered()
	}
}

// approvedTSAs returns the time-stamping authorities that this gateway may use.
func approvedTSAs(cfg *config.Gateway, view *globalconf.View) []globalconf.TSA {
	if view == nil {
		return nil
	}
	all := view.TSAs(cfg.Server.Owner().Instance())
	if cfg.MessageLog.TimestampingURL == "" {
		return all
	}
	for _, t := range all {
		if t.URL == cfg.MessageLog.TimestampingURL {
			return []globalconf.TSA{t}
		}
	}
	return nil
}

// stamper asks the approved time-stamping authorities in their order.
func stamper(cfg *config.Gateway, global *globalconf.Client, web *http.Client, now func() time.Time) func(context.Context, []byte) (*tsa.Token, error) {
	client := tsa.NewClient(tsa.ClientConfig{HTTP: web, Now: now})
	return func(ctx context.Context, data []byte) (*tsa.Token, error) {
		view := global.View()
		authorities := approvedTSAs(cfg, view)
		if len(authorities) == 0 {
			return nil, msglog.ErrNoTSA
		}
		var failed []error
		for _, a := range authorities {
			token, err := client.Stamp(ctx, a.URL, data, view.TSACertificates())
			if err == nil {
				return token, nil
			}
			failed = append(failed, fmt.Errorf("%s (%s): %w", a.Name, a.URL, err))
		}
		return nil, errors.Join(failed...)
	}
}

func stampInterval(cfg *config.Gateway, global *globalconf.Client) func() time.Duration {
	return func() time.Duration {
		if cfg.MessageLog.StampInterval > 0 {
			return cfg.MessageLog.StampInterval
		}
		if view := global.View(); view != nil {
			return view.TimestampInterval()
		}
		return msglog.DefaultInterval
	}
}

func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// reserve is what stays free on the disk; to log and spool, 0 means a default.
func reserve(cfg *config.Gateway) int64 {
	if cfg.MessageLog.DiskReserve == 0 {
		return -1
	}
	return int64(cfg.MessageLog.DiskReserve)
}

func bodyPolicy(cfg *config.Gateway) msglog.BodyPolicy {
	if cfg.MessageLog.Bodies {
		return msglog.FullBodies
	}
	return msglog.NoBodies
}

// reloadOnHangup reads clients, services and access rights again on SIGHUP.
func reloadOnHangup(ctx context.Context, log *zap.Logger, conf *serverconf.Store) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if err := conf.Reload(); err != nil {
				log.Error("clients and services were not reloaded; the old ones stay", zap.Error(err))
			} else {
				log.Info("clients and services reloaded")
			}
		}
	}
}

// gatewayChecks are the conditions under which a gateway can carry messages.
func gatewayChecks(global *globalconf.Client, keys *signer.Signer, messages *msglog.Log, now func() time.Time) []check {
	return []check{
		{"globalconf", func() error {
			view := global.View()
			if view == nil {
				return errors.New("no global configuration yet; is the registry of the anchor reachable?")
			}
			return view.Valid(now())
		}},
		{"authentication key", func() error { _, err := keys.Auth(global.View()); return err }},
		{"signing key", func() error {
			for _, k := range keys.Status() {
				if k.Usage == pki.Signing && k.Usable {
					return nil
				}
			}
			return signer.ErrNoKey
		}},
		{"message log", func() error {
			s := messages.Stats()
			if s.Failed == nil && !s.RefuseAt.IsZero() && now().After(s.RefuseAt) {
				return fmt.Errorf("time-stamping has failed since %s: %w", s.FailingSince.Format(time.RFC3339), s.StampError)
			}
			return s.Failed
		}},
	}
}

// registerState exposes what operators must watch before it hurts.
func registerState(r *prometheus.Registry, messages *msglog.Log, global *globalconf.Client, keys *signer.Signer) {
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	seconds := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return time.Until(t).Seconds()
	}
	gauge("kontor_log_records", "Records in the message log.", func() float64 { return float64(messages.Stats().Records) })
	gauge("kontor_log_unstamped", "Records that wait for a time-stamp.", func() float64 { return float64(messages.Stats().Unstamped) })
	gauge("kontor_log_oldest_unstamped_seconds", "Age of the oldest record without a time-stamp.", func() float64 { return -seconds(messages.Stats().OldestUnstamped) })
	gauge("kontor_log_refuse_in_seconds", "Time until messages are refused because time-stamping fails; 0: it works.", func() float64 { return seconds(messages.Stats().RefuseAt) })
	gauge("kontor_log_bytes", "Size of the message log without body files.", func() float64 { return float64(messages.Stats().Bytes) })
	gauge("kontor_log_body_bytes", "Size of the message log's body files.", func() float64 { return float64(messages.Stats().BodyBytes) })
	gauge("kontor_log_free_bytes", "Free space on the disk of the message log; -1: unknown.", func() float64 { return float64(messages.Stats().FreeBytes) })
	gauge("kontor_log_stalled_seconds", "How long records waited because the index of the message log lagged behind, since the start.", func() float64 { return messages.Stats().Stalled.Seconds() })
	gauge("kontor_globalconf_expires_seconds", "Time until the global configuration expires.", func() float64 {
		if view := global.View(); view != nil {
			return seconds(view.Expires())
		}
		return 0
	})
	count := func(name, help string, value func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	count("kontor_signatures_total", "Signatures made.", func() uint64 { n, _ := keys.Counts(); return n })
	count("kontor_signed_messages_total", "Messages signed: how many per signature tells how they share them.", func() uint64 { _, n := keys.Counts(); return n })
	gauge("kontor_keys_unusable", "Certificates of this gateway that cannot be used now.", func() float64 {
		n := 0
		for _, k := range keys.Status() {
			if !k.Usable {
				n++
			}
		}
		return float64(n)
	})
}
