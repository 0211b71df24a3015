// SPDX-License-Identifier: Apache-2.0

// Package gateway carries messages between information systems and other
// security servers. It is both proxies of X-Road: the client proxy that local
// systems send requests to, and the server proxy that answers other servers.
//
// One message walks one straight line: [Gateway.ServeClient] and
// clientExchange on the consumer's side, [Gateway.ServeServer] and
// serverExchange on the provider's. The numbers in their comments are those of
// docs/design/message-path.md.
//
// Faults get their code where they are found, their origin and detail once, in
// the two Serve methods, and one structured record per exchange is logged
// there.
package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/msglog"
	"kontor/gateway/opmonitor"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/gateway/tracing"
	"kontor/gateway/tunnel"
	"kontor/pki/asic"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// Config holds what a Gateway needs. All fields without a stated default are
// mandatory.
type Config struct {
	Server id.SecurityServer // this security server

	View     func() *globalconf.View // the newest global configuration; nil before the first
	Conf     *serverconf.Store       // local clients, services, access rights
	Signer   *signer.Signer
	Tunnel   *tunnel.Client
	Peers    *tunnel.PeerVerifier
	Log      *msglog.Log
	Spool    *message.Spool
	Verifier *asic.Verifier

	Builtins []Builtin // services that the security server itself provides
	// Records takes a record of every exchange; nil: none is kept.
	Records *opmonitor.Store
	Tracer  *tracing.Tracer // nil: trace context is not carried, no spans are made

	Faults  fault.Style // how its own codes are spelt; empty: as X-Road 7.8
	Limits  Limits
	Metrics *Metrics         // nil: none are kept
	Logger  *zap.Logger      // nil: nothing is logged
	Now     func() time.Time // nil: time.Now
}

// Limits bound what one exchange may cost. Zero values mean the defaults.
type Limits struct {
	// Exchanges is the most exchanges under way at once on each side; one more
	// is refused. One client or peer alone may have four fifths of them, less as
	// others come. Default 1024.
	Exchanges int
	// Idle is how long a client, peer or service may leave a transfer without
	// progress. Default 60 s.
	Idle time.Duration
	// Answer is how long a consumer's gateway waits for the first byte of the
	// provider's answer. Default 5 minutes: longer than a service's own time-out.
	Answer time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Exchanges == 0 {
		l.Exchanges = 1024
	}
	if l.Idle == 0 {
		l.Idle = time.Minute
	}
	if l.Answer == 0 {
		l.Answer = 5 * time.Minute
	}
	return l
}

// Version is the X-Road release whose behaviour this gateway has; peers may
// demand a minimum (Message Transport Protocol, section 2.2).
const Version = "7.8.1"

// Gateway carries messages. It is safe for concurrent use.
type Gateway struct {
	server   id.SecurityServer
	newest   func() *globalconf.View
	conf     *serverconf.Store
	signer   *signer.Signer
	tunnel   *tunnel.Client
	peers    *tunnel.PeerVerifier
	log      *msglog.Log
	spool    *message.Spool
	verifier *asic.Verifier
	faults   fault.Style
	limits   Limits
	metrics  *Metrics
	logger   *zap.Logger
	now      func() time.Time
	builtins builtins
	records  *opmonitor.Store
	tracer   *tracing.Tracer

	services serviceClients
	client   *slots // exchanges under way as client proxy
	provider *slots // … and as server proxy
	draining sync.WaitGroup
}

// New returns a gateway for cfg.
func New(cfg Config) (*Gateway, error) {
	if cfg.Server.IsZero() || cfg.View == nil || cfg.Conf == nil || cfg.Signer == nil || cfg.Tunnel == nil ||
		cfg.Peers == nil || cfg.Log == nil || cfg.Spool == nil || cfg.Verifier == nil {
		return nil, errors.New("gateway: incomplete configuration")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	provided, err := newBuiltins(cfg.Builtins)
	if err != nil {
		return nil, err
	}
	limits := cfg.Limits.withDefaults()
	return &Gateway{
		server: cfg.Server, newest: cfg.View, conf: cfg.Conf, signer: cfg.Signer, tunnel: cfg.Tunnel,
		peers: cfg.Peers, log: cfg.Log, spool: cfg.Spool, verifier: cfg.Verifier,
		faults: cfg.Faults, limits: limits, metrics: cfg.Metrics, logger: cfg.Logger, now: cfg.Now, builtins: provided, records: cfg.Records, tracer: cfg.Tracer,
		client:   newSlots(limits.Exchanges),
		provider: newSlots(limits.Exchanges),
	}, nil
}

// Wait blocks until every exchange under way has ended or ctx is done. Stop
// the listeners first.
func (g *Gateway) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { g.draining.Wait(); close(done) }()
	select {
	case <-done:
		g.services.close()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// View returns the global configuration that judges an exchange which begins
// now. Its error is a fault: there is none, or it has expired.
func (g *Gateway) View() (*globalconf.View, error) {
	view := g.newest()
	if view == nil {
		return nil, fault.New(fault.GlobalConfOutdated, "This security server has no global configuration yet")
	}
	if err := view.Valid(g.now()); err != nil {
		return nil, fault.Wrap(fault.GlobalConfOutdated, err, "The global configuration expired at %s",
			view.Expires().UTC().Format(time.RFC3339))
	}
	return view, nil
}

// append writes one record, durably. A signature exists by now, so the record
// is written even if the caller has gone.
func (g *Gateway) append(ctx context.Context, r *msglog.Record) error {
	err := g.log.Append(context.WithoutCancel(ctx), r)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, msglog.ErrNoTSA):
		return fault.Wrap(fault.MlogNoTimestampingProvider.In(fault.LoggingFailed), err,
			"The message was not logged: no time-stamping service is approved")
	case errors.Is(err, msglog.ErrTimestamping):
		return fault.Wrap(fault.TimestampingFailed.In(fault.LoggingFailed), err,
			"The message was not logged: time-stamping has failed for too long")
	case errors.Is(err, msglog.ErrDiskFull):
		return fault.Wrap(fault.LoggingFailed, err, "The message was not logged: the disk of the message log is full")
	}
	return fault.Wrap(fault.LoggingFailed, err, "The message was not logged")
}

func newUUID() string { return uuid.NewString() }
