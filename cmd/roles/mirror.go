// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/config"
	"kontor/pki"
	"kontor/registry/mirror"
)

// InitMirror creates the key of the mirror of a configuration, and its PIN if
// there is none yet.
func InitMirror(cfg *config.Mirror, alg pki.Algorithm) error {
	pin, err := NewSecret(cfg.PINFile, "pin_file")
	if err != nil {
		return err
	}
	return mirror.Create(cfg.DataDir, pin, alg)
}

// OpenMirror opens the mirror of a configuration.
func OpenMirror(cfg *config.Mirror) (*mirror.Mirror, error) {
	return openMirror(cfg, zap.NewNop(), time.Now)
}

func openMirror(cfg *config.Mirror, log *zap.Logger, now func() time.Time) (*mirror.Mirror, error) {
	pin, err := Secret(cfg.PINFile, "pin_file")
	if err != nil {
		return nil, err
	}
	m, err := mirror.Open(cfg.DataDir, pin, mirror.Config{
		Name: cfg.Name, Address: cfg.Address, AnchorFile: cfg.Anchor, External: cfg.External, Federations: cfg.Federations,
		Interval: cfg.Interval, Validity: cfg.Validity, Now: now, Log: log})
	if errors.Is(err, mirror.ErrNotFound) {
		return nil, fmt.Errorf("%w; run kontor registry mirror init first", err)
	}
	return m, err
}

// RunMirror runs a mirror until ctx is done.
func RunMirror(ctx context.Context, cfg *config.Mirror, o Options) error {
	log, now := o.withDefaults()
	m, err := openMirror(cfg, log, now)
	if err != nil {
		return err
	}
	defer m.Close()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kontor_published_expires_seconds", Help: "Time until the published configuration expires.",
	}, func() float64 { return m.Status().Expires.Sub(now()).Seconds() }))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error {
		return serve(ctx, log, []endpoint{
			{key: "listen.http", addr: cfg.Listen.HTTP, handler: m.Handler()},
			{key: "listen.metrics", addr: cfg.Listen.Metrics, handler: observe(metrics, []check{
				{"publication", func() error {
					s := m.Status()
					if s.Healthy {
						return nil
					}
					err := errors.New("no valid configuration is served")
					for _, v := range s.Versions {
						if v.Error != "" {
							err = fmt.Errorf("%w: version %d: %s", err, v.Version, v.Error)
						}
					}
					return err
				}},
			})},
		}, o.Ready)
	})
	return g.Wait()
}
