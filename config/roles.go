// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kontor/registry/id"
)

// Gateway configures a security server.
type Gateway struct {
	Server  id.SecurityServer `mapstructure:"server"`   // own identifier: instance/class/member/server
	DataDir string            `mapstructure:"data_dir"` // keys, global configuration, message log
	PINFile string            `mapstructure:"pin_file"` // holds the PIN of the software token
	Anchor  string            `mapstructure:"anchor"`   // configuration anchor, an XML file
	Address string            `mapstructure:"address"`  // IP address to connect from; empty: the system's choice

	Listen struct {
		Consumer    string `mapstructure:"consumer"`     // HTTP for local information systems
		ConsumerTLS string `mapstructure:"consumer_tls"` // HTTPS for them
		Peer        string `mapstructure:"peer"`         // other security servers
		OCSP        string `mapstructure:"ocsp"`         // OCSP responses of our own certificates, for peers
		Admin       string `mapstructure:"admin"`        // administration API, HTTPS
		Metrics     string `mapstructure:"metrics"`      // Prometheus metrics and health; empty: off
	} `mapstructure:"listen"`

	Peers struct {
		Port     int `mapstructure:"port"`      // of other security servers
		OCSPPort int `mapstructure:"ocsp_port"` // of their OCSP service
	} `mapstructure:"peers"`

	GlobalConf struct {
		Interval    time.Duration `mapstructure:"interval"`
		Federations []string      `mapstructure:"federations"` // instances to trust, "all" or none
	} `mapstructure:"globalconf"`

	MessageLog struct {
		Bodies          bool          `mapstructure:"bodies"`           // keep message bodies
		MaxBody         Size          `mapstructure:"max_body"`         // larger bodies are refused
		InlineBody      Size          `mapstructure:"inline_body"`      // larger bodies go to files
		DiskReserve     Size          `mapstructure:"disk_reserve"`     // stop before the disk has less left
		StampInterval   time.Duration `mapstructure:"stamp_interval"`   // 0: as the global configuration says
		StampGrace      time.Duration `mapstructure:"stamp_grace"`      // refuse messages when stamping has failed this long; 0: never
		TimestampingURL string        `mapstructure:"timestamping_url"` // one of the approved services; empty: all, in order
		Keep            time.Duration `mapstructure:"keep"`             // archive and remove older records; 0: keep for ever
		ArchiveDir      string        `mapstructure:"archive_dir"`      // where removed records go as X-Road archives; empty: nowhere
	} `mapstructure:"message_log"`

	Signing struct {
		Batch string `mapstructure:"batch"` // auto, never or always: when messages share a signature
	} `mapstructure:"signing"`

	// Tunnel says how messages get to other security servers.
	Tunnel struct {
		Transport        string `mapstructure:"transport"`         // auto, https or quic
		StreamWindow     Size   `mapstructure:"stream_window"`     // what a peer may send of one message ahead of its reader, over QUIC
		ConnectionWindow Size   `mapstructure:"connection_window"` // the same of all messages of a connection
		Connections      int    `mapstructure:"connections"`       // most to one peer, over QUIC
	} `mapstructure:"tunnel"`

	// GovStack shows the metadata services as those of GovStack's Information
	// Mediator.
	GovStack struct {
		Listen string    `mapstructure:"listen"` // HTTP for local information systems; empty: off
		Client id.Client `mapstructure:"client"` // asks for callers that name no client of this gateway; none: they are refused
	} `mapstructure:"govstack"`

	// ACME keeps certificates valid without an operator. It is off without any.
	ACME struct {
		Listen       string            `mapstructure:"listen"`       // answers challenges; port 80 of dns_name leads there
		DNSName      string            `mapstructure:"dns_name"`     // host name of this security server, for which certificates are
		Country      string            `mapstructure:"country"`      // two letters, for profiles that show it
		RenewBefore  time.Duration     `mapstructure:"renew_before"` // before the end, where the authority does not say when; 0: a third of the lifetime
		Certificates []ACMECertificate `mapstructure:"certificates"`
	} `mapstructure:"acme"`

	// OperationalMonitoring keeps a record of every exchange, without its
	// content, for X-Road's monitoring services.
	OperationalMonitoring struct {
		Enabled        bool          `mapstructure:"enabled"`
		Keep           time.Duration `mapstructure:"keep"`            // older records go
		MaxSize        Size          `mapstructure:"max_size"`        // the oldest go before there is more
		AvailableAfter time.Duration `mapstructure:"available_after"` // how old records must be before others get them
		MaxRecords     int           `mapstructure:"max_records"`     // in one answer
		LimitRemote    bool          `mapstructure:"limit_remote"`    // tell the instance's monitoring client less about this machine than its owner
	} `mapstructure:"operational_monitoring"`

	// Tracing tells a collector about exchanges. It is off without an endpoint.
	Tracing struct {
		Endpoint  string  `mapstructure:"endpoint"`  // OTLP over HTTP, such as http://localhost:4318/v1/traces
		Sample    float64 `mapstructure:"sample"`    // fraction of exchanges, 0 to 1
		Propagate bool    `mapstructure:"propagate"` // carry trace context from hop to hop, even without an endpoint
	} `mapstructure:"tracing"`

	Faults struct {
		Style string `mapstructure:"style"` // snake_case or CamelCase: how this gateway spells the codes of its faults
	} `mapstructure:"faults"`

	Limits struct {
		Exchanges int           `mapstructure:"exchanges"`
		Idle      time.Duration `mapstructure:"idle"`
		Answer    time.Duration `mapstructure:"answer"`
	} `mapstructure:"limits"`

	Logging Logging `mapstructure:"logging"`
}

// ACMECertificate is one certificate that the gateway keeps valid by ACME.
type ACMECertificate struct {
	Usage       string    `mapstructure:"usage"`       // authentication or signing
	Credentials string    `mapstructure:"credentials"` // file of the authority's operator: kontor trust eab add
	Member      id.Member `mapstructure:"member"`      // whose messages a signing key signs; none: the owner
	Profile     string    `mapstructure:"profile"`     // certificate profile; empty: that of the only approved authority
}

// LoadGateway reads the configuration of a gateway.
func LoadGateway(file string) (*Gateway, error) {
	c := new(Gateway)
	if err := load(file, c); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Gateway) name() string { return "a gateway" }

func (c *Gateway) defaults() {
	c.DataDir = "/var/lib/kontor/gateway"
	c.PINFile = "/etc/kontor/gateway.pin"
	c.Anchor = "/etc/kontor/anchor.xml"
	c.Listen.Consumer, c.Listen.ConsumerTLS = "127.0.0.1:8080", "127.0.0.1:8443"
	c.Listen.Peer, c.Listen.OCSP = ":5500", ":5577"
	c.Listen.Admin, c.Listen.Metrics = "127.0.0.1:4000", "127.0.0.1:9100"
	c.Peers.Port, c.Peers.OCSPPort = 5500, 5577
	c.GlobalConf.Interval = time.Minute
	c.MessageLog.Bodies = true
	c.MessageLog.MaxBody, c.MessageLog.InlineBody, c.MessageLog.DiskReserve = 4<<30, 64<<10, 1<<30
	c.MessageLog.StampGrace = 4 * time.Hour
	c.Signing.Batch = "auto"
	c.Tunnel.Transport, c.Tunnel.StreamWindow, c.Tunnel.ConnectionWindow, c.Tunnel.Connections = "auto", 16<<20, 48<<20, 32
	c.ACME.Listen = ":80"
	o := &c.OperationalMonitoring
	o.Enabled, o.Keep, o.MaxSize, o.AvailableAfter, o.MaxRecords = true, 7*24*time.Hour, 1<<30, time.Minute, 10_000
	c.Tracing.Sample = 0.1
	c.Faults.Style = "snake_case"
	c.Limits.Exchanges, c.Limits.Idle, c.Limits.Answer = 1024, time.Minute, 5*time.Minute
	c.Logging.defaults()
}

func (c *Gateway) validate(p *problems) {
	if c.Server.IsZero() {
		p.add("server", "missing; give the identifier of this security server, as instance/class/member/server")
	}
	required(p, "data_dir", c.DataDir)
	required(p, "pin_file", c.PINFile)
	required(p, "anchor", c.Anchor)
	if c.Address != "" && net.ParseIP(c.Address) == nil {
		p.add("address", "%q is not an IP address", c.Address)
	}
	listen(p, "listen.consumer", c.Listen.Consumer, true)
	listen(p, "listen.consumer_tls", c.Listen.ConsumerTLS, true)
	listen(p, "listen.peer", c.Listen.Peer, false)
	listen(p, "listen.ocsp", c.Listen.OCSP, false)
	listen(p, "listen.admin", c.Listen.Admin, true)
	listen(p, "listen.metrics", c.Listen.Metrics, true)
	listen(p, "govstack.listen", c.GovStack.Listen, true)
	port(p, "peers.port", c.Peers.Port)
	port(p, "peers.ocsp_port", c.Peers.OCSPPort)
	atLeast(p, "globalconf.interval", c.GlobalConf.Interval, time.Second)
	if c.MessageLog.InlineBody > 1<<20 {
		p.add("message_log.inline_body", "%s is too much for a log record; at most 1MiB", c.MessageLog.InlineBody)
	}
	if c.MessageLog.MaxBody < c.MessageLog.InlineBody {
		p.add("message_log.max_body", "%s is less than message_log.inline_body, %s", c.MessageLog.MaxBody, c.MessageLog.InlineBody)
	}
	if c.MessageLog.StampInterval != 0 {
		atLeast(p, "message_log.stamp_interval", c.MessageLog.StampInterval, 100*time.Millisecond)
	}
	if c.MessageLog.StampGrace < 0 {
		p.add("message_log.stamp_grace", "negative; use 0 to never refuse messages")
	}
	if c.MessageLog.Keep != 0 {
		atLeast(p, "message_log.keep", c.MessageLog.Keep, time.Hour)
	}
	if c.MessageLog.TimestampingURL != "" {
		address(p, "message_log.timestamping_url", c.MessageLog.TimestampingURL)
	}
	if s := c.Faults.Style; s != "snake_case" && s != "CamelCase" {
		p.add("faults.style", "%q is not a style of fault codes; use snake_case or CamelCase", s)
	}
	if b := c.Signing.Batch; b != "auto" && b != "never" && b != "always" {
		p.add("signing.batch", "%q is not a way of batching; use auto, never or always", b)
	}
	c.validateACME(p)
	c.validateMonitoring(p)
	c.validateTunnel(p)
	if c.Limits.Exchanges < 1 || c.Limits.Exchanges > 1<<16 {
		p.add("limits.exchanges", "%d is not between 1 and 65536", c.Limits.Exchanges)
	}
	atLeast(p, "limits.idle", c.Limits.Idle, time.Second)
	atLeast(p, "limits.answer", c.Limits.Answer, time.Second)
	c.Logging.validate(p)
}

func (c *Gateway) validateTunnel(p *problems) {
	t := &c.Tunnel
	if t.Transport != "auto" && t.Transport != "https" && t.Transport != "quic" {
		p.add("tunnel.transport", "%q is not a transport; use auto, https or quic", t.Transport)
	}
	if t.StreamWindow < 64<<10 {
		p.add("tunnel.stream_window", "%s is too little; at least 64KiB is needed", t.StreamWindow)
	}
	if t.ConnectionWindow < t.StreamWindow || t.ConnectionWindow > 1<<30 {
		p.add("tunnel.connection_window", "%s is less than tunnel.stream_window, %s, or more than 1GiB", t.ConnectionWindow, t.StreamWindow)
	}
	if t.Connections < 1 || t.Connections > 64 {
		p.add("tunnel.connections", "%d is not between 1 and 64", t.Connections)
	}
}

func (c *Gateway) validateMonitoring(p *problems) {
	o, t := &c.OperationalMonitoring, &c.Tracing
	atLeast(p, "operational_monitoring.keep", o.Keep, time.Minute)
	atLeast(p, "operational_monitoring.available_after", o.AvailableAfter, 2*time.Second)
	if o.MaxSize < 1<<20 {
		p.add("operational_monitoring.max_size", "%s is too little; at least 1MiB is needed", o.MaxSize)
	}
	if o.MaxRecords < 1 || o.MaxRecords > 1_000_000 {
		p.add("operational_monitoring.max_records", "%d is not between 1 and 1000000", o.MaxRecords)
	}
	if t.Endpoint != "" {
		address(p, "tracing.endpoint", t.Endpoint)
	}
	if !(t.Sample >= 0 && t.Sample <= 1) {
		p.add("tracing.sample", "%v is not between 0 and 1", t.Sample)
	}
}

func (c *Gateway) validateACME(p *problems) {
	if len(c.ACME.Certificates) == 0 {
		return
	}
	listen(p, "acme.listen", c.ACME.Listen, false)
	if strings.TrimSpace(c.ACME.DNSName) == "" {
		p.add("acme.dns_name", "missing; give the host name of this security server, which the authority will ask")
	}
	if c.ACME.RenewBefore != 0 {
		atLeast(p, "acme.renew_before", c.ACME.RenewBefore, time.Minute)
	}
	type subject struct {
		usage  string
		member id.Member
	}
	seen := map[subject]bool{}
	for i, e := range c.ACME.Certificates {
		bad := func(format string, args ...any) {
			p.add("acme.certificates", "entry %d: "+format, append([]any{i + 1}, args...)...)
		}
		owner := c.Server.Owner()
		if e.Member.IsZero() {
			e.Member = owner
		}
		switch {
		case e.Usage != "authentication" && e.Usage != "signing":
			bad("usage %q; use authentication or signing", e.Usage)
		case e.Usage == "authentication" && e.Member != owner:
			bad("an authentication certificate is for the owner, %s; leave out member", owner)
		case seen[subject{e.Usage, e.Member}]:
			bad("there is another for %s of %s; remove one", e.Usage, e.Member)
		}
		if strings.TrimSpace(e.Credentials) == "" {
			bad("credentials is missing; ask the authority's operator for the file (kontor trust eab add)")
		}
		seen[subject{e.Usage, e.Member}] = true
	}
}

// ServerConf returns the path of the file with clients, services and rights.
func (c *Gateway) ServerConf() string { return filepath.Join(c.DataDir, "serverconf.yaml") }

// Registry configures a central registry.
type Registry struct {
	Instance  string `mapstructure:"instance"`  // X-Road instance identifier
	DataDir   string `mapstructure:"data_dir"`  // journal, signing keys, published configuration
	PINFile   string `mapstructure:"pin_file"`  // holds the PIN of the token with the signing keys
	Ecosystem string `mapstructure:"ecosystem"` // declaration that is applied at start if it is new, and on SIGHUP; empty: none
	Address   string `mapstructure:"address"`   // host name or address under which gateways reach listen.http
	Node      string `mapstructure:"node"`      // name of a further node that shares its state with the first; empty: the first

	Store struct {
		// Postgres keeps the journal in a database that several nodes share;
		// empty: in data_dir.
		Postgres struct {
			DSN          string `mapstructure:"dsn"`           // connection string without the password
			PasswordFile string `mapstructure:"password_file"` // holds the password; empty: none is asked for
		} `mapstructure:"postgres"`
	} `mapstructure:"store"`

	Listen struct {
		HTTP       string `mapstructure:"http"`       // global configuration
		Management string `mapstructure:"management"` // registration of security servers, HTTPS; empty: off
		// ManagementInternal takes all other requests of security servers, HTTPS.
		// Only the security server that provides them may reach it. Empty: off.
		ManagementInternal string `mapstructure:"management_internal"`
		Admin              string `mapstructure:"admin"`   // administration API, HTTPS; empty: off
		Metrics            string `mapstructure:"metrics"` // Prometheus metrics and health; empty: off
	} `mapstructure:"listen"`

	PublishInterval time.Duration `mapstructure:"publish_interval"`
	Logging         Logging       `mapstructure:"logging"`
}

// LoadRegistry reads the configuration of a registry.
func LoadRegistry(file string) (*Registry, error) {
	c := new(Registry)
	if err := load(file, c); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Registry) name() string { return "a registry" }

func (c *Registry) defaults() {
	c.DataDir = "/var/lib/kontor/registry"
	c.PINFile = "/etc/kontor/registry.pin"
	c.Listen.HTTP, c.Listen.Admin, c.Listen.Metrics = ":80", "127.0.0.1:4000", "127.0.0.1:9101"
	c.Listen.Management, c.Listen.ManagementInternal = ":4001", "127.0.0.1:4002"
	c.PublishInterval = time.Minute
	c.Logging.defaults()
}

func (c *Registry) validate(p *problems) {
	if err := id.CheckCharacters(c.Instance); err != nil {
		p.add("instance", "%v; give the identifier of the X-Road instance, such as EE-TEST", err)
	}
	required(p, "data_dir", c.DataDir)
	required(p, "pin_file", c.PINFile)
	required(p, "address", c.Address)
	listen(p, "listen.http", c.Listen.HTTP, false)
	listen(p, "listen.management", c.Listen.Management, true)
	listen(p, "listen.management_internal", c.Listen.ManagementInternal, true)
	listen(p, "listen.admin", c.Listen.Admin, true)
	listen(p, "listen.metrics", c.Listen.Metrics, true)
	c.validateStore(p)
	atLeast(p, "publish_interval", c.PublishInterval, time.Second)
	if c.PublishInterval > 5*time.Minute {
		p.add("publish_interval", "%s is too long: what is published expires after ten minutes", c.PublishInterval)
	}
	c.Logging.validate(p)
}

// secretDSN finds a password in a connection string, which is either a URL or
// a list of key=value.
var secretDSN = regexp.MustCompile(`(?i)(^|[\s?&])password\s*=|^\w+://[^/@:]*:[^@]*@`)

func (c *Registry) validateStore(p *problems) {
	db := c.Store.Postgres
	if secretDSN.MatchString(db.DSN) {
		p.add("store.postgres.dsn", "holds a password; put it into a file and name that in store.postgres.password_file")
	}
	if db.DSN != "" {
		if c.Node != "" {
			if err := id.CheckCharacters(c.Node); err != nil {
				p.add("node", "%v", err)
			}
		}
		return
	}
	if db.PasswordFile != "" {
		p.add("store.postgres.dsn", "missing; say where the database is, as in host=db.example.org dbname=kontor user=kontor sslmode=verify-full")
	}
	if c.Node != "" {
		p.add("node", "only nodes that share their state have names; set store.postgres.dsn or leave this out")
	}
}

// Trust configures the trust services: certification authority, OCSP
// responder, time-stamping authority.
type Trust struct {
	DataDir        string `mapstructure:"data_dir"`
	PassphraseFile string `mapstructure:"passphrase_file"` // protects the keys
	URL            string `mapstructure:"url"`             // under which clients reach listen.http

	Listen struct {
		HTTP    string `mapstructure:"http"`  // /ocsp, /tsa, /ca.pem
		HTTPS   string `mapstructure:"https"` // the same and /acme; empty: off
		Metrics string `mapstructure:"metrics"`
	} `mapstructure:"listen"`

	// TLS is the web server certificate for listen.https, as PEM files; both
	// empty: the authority issues one to itself.
	TLS struct {
		Certificate string `mapstructure:"certificate"`
		Key         string `mapstructure:"key"`
	} `mapstructure:"tls"`

	ACME struct {
		Enabled        bool   `mapstructure:"enabled"`
		URL            string `mapstructure:"url"`             // under which applicants reach listen.https
		Profile        string `mapstructure:"profile"`         // certificate profile, as the registry approves the authority with
		ValidationPort int    `mapstructure:"validation_port"` // of applicants, where challenges are asked for
	} `mapstructure:"acme"`

	Logging Logging `mapstructure:"logging"`
}

// LoadTrust reads the configuration of the trust services.
func LoadTrust(file string) (*Trust, error) {
	c := new(Trust)
	if err := load(file, c); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Trust) name() string { return "trust services" }

func (c *Trust) defaults() {
	c.DataDir = "/var/lib/kontor/trust"
	c.PassphraseFile = "/etc/kontor/trust.pass"
	c.Listen.HTTP, c.Listen.Metrics = ":8888", "127.0.0.1:9102"
	c.ACME.Profile, c.ACME.ValidationPort = "FiVRK", 80
	c.Logging.defaults()
}

func (c *Trust) validate(p *problems) {
	required(p, "data_dir", c.DataDir)
	required(p, "passphrase_file", c.PassphraseFile)
	address(p, "url", c.URL)
	listen(p, "listen.http", c.Listen.HTTP, false)
	listen(p, "listen.https", c.Listen.HTTPS, true)
	listen(p, "listen.metrics", c.Listen.Metrics, true)
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		p.add("tls", "certificate and key belong together; leave out both for a certificate of the authority's own")
	}
	if c.ACME.Enabled {
		u, err := url.Parse(c.ACME.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			p.add("acme.url", "%q is not an https URL without a path, such as https://ca.example.org:8889", c.ACME.URL)
		}
		required(p, "acme.profile", c.ACME.Profile)
		port(p, "acme.validation_port", c.ACME.ValidationPort)
	} else if c.Listen.HTTPS != "" {
		p.add("listen.https", "serves nothing unless acme.enabled is true")
	}
	c.Logging.validate(p)
}

func required(p *problems, key, value string) {
	if strings.TrimSpace(value) == "" {
		p.add(key, "missing")
	}
}

func listen(p *problems, key, value string, optional bool) {
	if value == "" && optional {
		return
	}
	host, text, err := net.SplitHostPort(value)
	n, e := strconv.Atoi(text)
	if err != nil || e != nil || n < 0 || n > 65535 {
		p.add(key, "%q is not an address to listen on; write host:port or :port", value)
	} else if host != "" && net.ParseIP(host) == nil && host != "localhost" {
		p.add(key, "%q is not an IP address of this machine", host)
	}
}

func port(p *problems, key string, n int) {
	if n < 1 || n > 65535 {
		p.add(key, "%d is not a port", n)
	}
}

func address(p *problems, key, value string) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		p.add(key, "%q is not an http or https URL", value)
	}
}
