// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/config"
	"kontor/pki"
	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/guard"
	"kontor/registry/postgres"
)

// Operator names who changes the registry from this machine.
func Operator(why string) registry.Author {
	who := "operator"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	return registry.Author{Who: who, Why: why}
}

// InitRegistry creates the registry of a configuration, and its PIN if there
// is none yet.
func InitRegistry(cfg *config.Registry, alg pki.Algorithm) error {
	pin, err := NewSecret(cfg.PINFile, "pin_file")
	if err != nil {
		return err
	}
	if cfg.Node != "" {
		return errors.New("node: only the first node creates a registry, and has no name; further ones join it (--join)")
	}
	create := registry.CreateConfig{Instance: cfg.Instance, Address: cfg.Address, Algorithm: alg, By: Operator("kontor registry init")}
	if shared, err := sharedStore(cfg); err != nil {
		return err
	} else if shared != nil {
		create.Store = shared
	}
	if err := registry.Create(cfg.DataDir, pin, create); err != nil {
		return err
	}
	return errors.Join(initRegistryAdmin(cfg), initManagement(cfg))
}

// JoinRegistry makes a further node of the registry whose state is in the
// database of a configuration, or replaces a node that is lost.
func JoinRegistry(cfg *config.Registry, alg pki.Algorithm, replace bool) error {
	pin, err := NewSecret(cfg.PINFile, "pin_file")
	if err != nil {
		return err
	}
	shared, err := sharedStore(cfg)
	if err != nil {
		return err
	}
	if shared == nil {
		return errors.New("store.postgres.dsn: missing; a node joins others by the database that they share")
	}
	err = registry.Join(cfg.DataDir, pin, registry.JoinConfig{
		Node: cfg.Node, Address: cfg.Address, Replace: replace, Algorithm: alg, By: Operator("kontor registry init --join"), Store: shared})
	if err != nil {
		return err
	}
	return errors.Join(initRegistryAdmin(cfg), initManagement(cfg))
}

// MoveRegistry moves the journal of a registry that does not run from its data
// directory into the database of its configuration.
func MoveRegistry(cfg *config.Registry) error {
	shared, err := sharedStore(cfg)
	if err != nil {
		return err
	}
	if shared == nil {
		return errors.New("store.postgres.dsn: missing; say where the journal shall go")
	}
	return registry.Move(cfg.DataDir, shared)
}

// sharedStore connects to the database of a configuration, if it names one.
func sharedStore(cfg *config.Registry) (registry.SharedStore, error) {
	db := cfg.Store.Postgres
	if db.DSN == "" {
		return nil, nil
	}
	return postgres.Open(context.Background(), postgres.Config{DSN: db.DSN, PasswordFile: db.PasswordFile})
}

// OpenRegistry opens the registry of a configuration.
func OpenRegistry(cfg *config.Registry) (*registry.Registry, error) {
	return openRegistry(cfg, zap.NewNop(), time.Now)
}

func openRegistry(cfg *config.Registry, log *zap.Logger, now func() time.Time) (*registry.Registry, error) {
	pin, err := Secret(cfg.PINFile, "pin_file")
	if err != nil {
		return nil, err
	}
	open := registry.Config{Interval: cfg.PublishInterval, Node: cfg.Node, Now: now, Log: log}
	if shared, err := sharedStore(cfg); err != nil {
		return nil, err
	} else if shared != nil {
		open.Store = shared
	}
	return registry.Open(cfg.DataDir, pin, open)
}

// applyEcosystem makes the state what the ecosystem file declares: at any time
// if again is set, else only if the file is not the one applied last, so that
// a restart does not undo what was decided since.
func applyEcosystem(ctx context.Context, cfg *config.Registry, r *registry.Registry, log *zap.Logger, again bool) error {
	if cfg.Ecosystem == "" {
		return nil
	}
	d, err := admin.LoadDeclaration(cfg.Ecosystem)
	if err != nil {
		return err
	}
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	mark := filepath.Join(cfg.DataDir, "ecosystem.applied")
	if last, err := os.ReadFile(mark); err == nil && string(last) == hash && !again {
		return nil
	}
	var changes []registry.Change
	_, err = r.Update(ctx, Operator("ecosystem file "+cfg.Ecosystem), func(st *registry.State) ([]registry.Change, error) {
		changes, err = d.Changes(st)
		return changes, err
	})
	if err != nil {
		return err
	}
	log.Info("ecosystem file applied", zap.String("file", cfg.Ecosystem), zap.Int("changes", len(changes)))
	return guard.WriteFile(mark, []byte(hash))
}

// RunRegistry runs a registry until ctx is done.
func RunRegistry(ctx context.Context, cfg *config.Registry, o Options) error {
	log, now := o.withDefaults()
	r, err := openRegistry(cfg, log, now)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := applyEcosystem(ctx, cfg, r, log, false); err != nil {
		return err
	}
	administration, closeAdmin, err := registryAdmin(ctx, cfg, r, log, now)
	if err != nil {
		return err
	}
	defer closeAdmin()
	services, err := managementServices(ctx, cfg, r, log, now)
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kontor_published_expires_seconds", Help: "Time until the published configuration expires.",
	}, func() float64 { return time.Until(r.Status().Expires).Seconds() }))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				if err := applyEcosystem(ctx, cfg, r, log, true); err != nil {
					log.Error("the ecosystem file was not applied; nothing has changed", zap.Error(err))
				}
			}
		}
	})
	g.Go(func() error {
		return serve(ctx, log, append(services, []endpoint{
			{key: "listen.http", addr: cfg.Listen.HTTP, handler: withWSDL(r.Handler())},
			administration,
			{key: "listen.metrics", addr: cfg.Listen.Metrics, handler: observe(metrics, []check{
				{"publication", func() error {
					s := r.Status()
					switch {
					case s.Healthy:
						return nil
					case time.Now().Before(s.Expires):
						return errors.New("a valid configuration is published, but: " + s.Error)
					}
					return errors.New("no valid configuration is published: " + s.Error)
				}},
			})},
		}...), o.Ready)
	})
	return g.Wait()
}
