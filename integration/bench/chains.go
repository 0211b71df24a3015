// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"kontor/integration/bench/reference"
	"kontor/integration/bench/world"
)

// chains are what a section compares.
type chains struct {
	references map[string]*reference.Chain
	order      []string // of the references
	world      *world.World
}

// start starts reference chains by name (caddy h2, caddy h3, go h2, nginx h1)
// and pairs of gateways. A reference that this machine cannot run is left out
// with a word. Call stop even after an error.
func (b *bench) start(names []string, pairs []world.PairConfig) (c *chains, err error) {
	c = &chains{references: map[string]*reference.Chain{}}
	for i, name := range names {
		dir, err := b.folder(name)
		if err != nil {
			return c, err
		}
		r, err := b.startReference(name, reference.Config{Dir: dir, IP: [2]string{fmt.Sprintf("127.91.%d.1", i), fmt.Sprintf("127.91.%d.2", i)}, Backend: backendAt})
		if err != nil {
			return c, err
		}
		if r == nil {
			b.say("%s is not installed; skipped", name)
			b.report.note("%s is not installed here and was not measured.", name)
			continue
		}
		c.references[name], c.order = r, append(c.order, name)
	}
	if len(pairs) == 0 {
		return c, nil
	}
	for i := range pairs {
		pairs[i].IP = [2]string{fmt.Sprintf("127.92.%d.1", i), fmt.Sprintf("127.92.%d.2", i)}
	}
	dir, err := b.folder("kontor")
	if err != nil {
		return c, err
	}
	b.say("starting %d gateways", 2*len(pairs))
	c.world, err = world.Start(b.ctx, world.Config{Bin: b.bin, Dir: dir, Registry: registryIP, Trust: trustIP, Backend: backendAt, Pairs: pairs})
	return c, err
}

// startReference returns nil if the program is not there.
func (b *bench) startReference(name string, cfg reference.Config) (*reference.Chain, error) {
	switch name {
	case "go h2":
		return reference.StartGo(b.ctx, []string{b.self, "proxy"}, cfg)
	case "nginx h1":
		program, err := exec.LookPath("nginx")
		if err != nil {
			return nil, nil
		}
		return reference.StartNginx(b.ctx, program, cfg)
	default:
		if b.caddy == "" {
			var err error
			if b.caddy, err = reference.Caddy(b.ctx, b.cache, os.Stderr); err != nil {
				return nil, err
			}
		}
		return reference.StartCaddy(b.ctx, b.caddy, name[len(name)-1:], cfg)
	}
}

// stop ends what start has started and removes what it wrote.
func (c *chains) stop() error {
	var failed []error
	for _, r := range c.references {
		failed = append(failed, r.Stop())
	}
	if c.world != nil {
		failed = append(failed, c.world.Stop(), os.RemoveAll(c.world.Dir))
	}
	return errors.Join(failed...)
}
