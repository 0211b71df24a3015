// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"time"
)

// Mirror configures a configuration proxy: it serves another registry's global
// configuration, signed with its own key.
type Mirror struct {
	Anchor      string   `mapstructure:"anchor"`      // configuration anchor of the registry, an XML file
	External    bool     `mapstructure:"external"`    // the anchor is the one for federation partners
	DataDir     string   `mapstructure:"data_dir"`    // signing key, downloaded and published configuration
	PINFile     string   `mapstructure:"pin_file"`    // holds the PIN of the token with the signing key
	Name        string   `mapstructure:"name"`        // first segment of the addresses that are served
	Address     string   `mapstructure:"address"`     // host name or address under which gateways reach listen.http
	Federations []string `mapstructure:"federations"` // instances whose shared parameters are served, too; "all" or none

	Listen struct {
		HTTP    string `mapstructure:"http"`    // global configuration
		Metrics string `mapstructure:"metrics"` // Prometheus metrics and health; empty: off
	} `mapstructure:"listen"`

	Interval time.Duration `mapstructure:"interval"` // between two downloads
	Validity time.Duration `mapstructure:"validity"` // of what is served, at most
	Logging  Logging       `mapstructure:"logging"`
}

// LoadMirror reads the configuration of a mirror.
func LoadMirror(file string) (*Mirror, error) {
	c := new(Mirror)
	if err := load(file, c); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Mirror) name() string { return "a mirror" }

func (c *Mirror) defaults() {
	c.Anchor = "/etc/kontor/anchor.xml"
	c.DataDir = "/var/lib/kontor/mirror"
	c.PINFile = "/etc/kontor/mirror.pin"
	c.Name = "mirror"
	c.Listen.HTTP, c.Listen.Metrics = ":80", "127.0.0.1:9103"
	c.Interval, c.Validity = time.Minute, 10*time.Minute
	c.Logging.defaults()
}

var mirrorName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func (c *Mirror) validate(p *problems) {
	required(p, "anchor", c.Anchor)
	required(p, "data_dir", c.DataDir)
	required(p, "pin_file", c.PINFile)
	required(p, "address", c.Address)
	if !mirrorName.MatchString(c.Name) || c.Name == "internalconf" || c.Name == "externalconf" {
		p.add("name", "%q cannot be the name of a mirror; use letters, digits, - and _", c.Name)
	}
	listen(p, "listen.http", c.Listen.HTTP, false)
	listen(p, "listen.metrics", c.Listen.Metrics, true)
	atLeast(p, "interval", c.Interval, time.Second)
	atLeast(p, "validity", c.Validity, time.Minute)
	if c.Validity < 2*c.Interval {
		p.add("validity", "%s is too short: it must outlast two intervals of %s", c.Validity, c.Interval)
	}
	c.Logging.validate(p)
}
