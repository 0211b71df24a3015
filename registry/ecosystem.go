// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"kontor/registry/id"
)

const (
	maxEcosystemFile = 64 << 20
	maxReferredFile  = 1 << 20
)

// Ecosystem is a declaration of what a registry shall hold, as people write it
// in a YAML file. A list or value that is absent is left as it is; a list that
// is present, be it empty, is complete: what it does not name is removed.
// Subsystems, certificates and clients are lists of their own in this sense.
type Ecosystem struct {
	Instance                string       `yaml:"instance"`
	Settings                *Settings    `yaml:"settings"`
	MemberClasses           []ClassDecl  `yaml:"memberClasses"`
	Members                 []MemberDecl `yaml:"members"`
	SecurityServers         []ServerDecl `yaml:"securityServers"`
	GlobalGroups            []GroupDecl  `yaml:"globalGroups"`
	CertificationServices   []CADecl     `yaml:"certificationServices"`
	TimestampingAuthorities []TSADecl    `yaml:"timestampingAuthorities"`
	TrustedAnchors          []File       `yaml:"trustedAnchors"`
}

// Settings are the system parameters that the declaration sets; nil means as it is.
type Settings struct {
	Address               *string      `yaml:"address"`
	ConfigurationValidity *int         `yaml:"configurationValidity"` // seconds
	OCSPFreshness         *int         `yaml:"ocspFreshness"`         // seconds
	TimestampingInterval  *int         `yaml:"timestampingInterval"`  // seconds
	OCSPFetchInterval     *int         `yaml:"ocspFetchInterval"`     // seconds; 0: the default
	IgnoreOCSPNextUpdate  *bool        `yaml:"ignoreOCSPNextUpdate"`
	MinimumVersion        *int         `yaml:"minimumVersion"`
	ManagementProvider    *id.Client   `yaml:"managementProvider"` // empty: none
	ManagementAddress     *string      `yaml:"managementAddress"`  // empty: the default
	ManagementCertificate *Certificate `yaml:"managementCertificate"`
	MonitoringClient      *id.Client   `yaml:"monitoringClient"` // empty: none

	AutoApproveCertificates *bool `yaml:"autoApproveCertificates"`
	AutoApproveClients      *bool `yaml:"autoApproveClients"`
	AutoApproveOwners       *bool `yaml:"autoApproveOwners"`
}

// ClassDecl declares a member class.
type ClassDecl struct {
	Code        string `yaml:"code"`
	Description string `yaml:"description"`
}

// MemberDecl declares a member; the instance is the registry's.
type MemberDecl struct {
	Class      string          `yaml:"class"`
	Code       string          `yaml:"code"`
	Name       string          `yaml:"name"`
	Subsystems []SubsystemDecl `yaml:"subsystems"`
}

// SubsystemDecl declares a subsystem of the member around it.
type SubsystemDecl struct {
	Code string `yaml:"code"`
	Name string `yaml:"name"`
}

// ServerDecl declares a security server.
type ServerDecl struct {
	ID           id.SecurityServer `yaml:"id"` // INSTANCE/CLASS/CODE/SERVER
	Address      string            `yaml:"address"`
	Certificates []Certificate     `yaml:"certificates"` // authentication certificates
	Clients      []id.Client       `yaml:"clients"`
	Maintenance  *MaintenanceDecl  `yaml:"maintenance"` // absent: not in maintenance
}

// MaintenanceDecl puts a server into maintenance.
type MaintenanceDecl struct {
	Message string `yaml:"message"`
}

// GroupDecl declares a global group.
type GroupDecl struct {
	Code        string      `yaml:"code"`
	Description string      `yaml:"description"`
	Members     []id.Client `yaml:"members"`
}

// CADecl declares an approved certification service.
type CADecl struct {
	Name               string             `yaml:"name"`
	Profile            string             `yaml:"profile"` // class name, full or short as "FiVRK"
	AuthenticationOnly bool               `yaml:"authenticationOnly"`
	Certificate        Certificate        `yaml:"certificate"`
	OCSP               []ResponderDecl    `yaml:"ocsp"`
	Intermediates      []IntermediateDecl `yaml:"intermediates"`
	CSRFormat          string             `yaml:"csrFormat"`
	ACME               *ACMEDecl          `yaml:"acme"`
}

// IntermediateDecl declares an intermediate authority.
type IntermediateDecl struct {
	Certificate Certificate     `yaml:"certificate"`
	OCSP        []ResponderDecl `yaml:"ocsp"`
}

// ResponderDecl declares an OCSP responder.
type ResponderDecl struct {
	URL         string      `yaml:"url"`
	Certificate Certificate `yaml:"certificate"`
	Cost        string      `yaml:"cost"`
}

// ACMEDecl declares the ACME server of a certification service.
type ACMEDecl struct {
	DirectoryURL          string `yaml:"directoryURL"`
	IPAddress             string `yaml:"ipAddress"`
	AuthenticationProfile string `yaml:"authenticationProfile"`
	SigningProfile        string `yaml:"signingProfile"`
}

// TSADecl declares an approved time-stamping authority.
type TSADecl struct {
	Name        string      `yaml:"name"`
	URL         string      `yaml:"url"`
	Certificate Certificate `yaml:"certificate"`
	Cost        string      `yaml:"cost"`
}

// Certificate is a certificate in a declaration: PEM text, or the name of a
// file with PEM or DER. The zero value is none.
type Certificate struct {
	der  []byte
	file string
}

// CertificateOf declares a certificate that is at hand.
func CertificateOf(c *x509.Certificate) Certificate { return Certificate{der: c.Raw} }

// UnmarshalYAML reads PEM text or a file name.
func (c *Certificate) UnmarshalYAML(n *yaml.Node) error {
	var s string
	if err := n.Decode(&s); err != nil {
		return err
	}
	if !strings.Contains(s, "-----BEGIN") {
		*c = Certificate{file: s}
		return nil
	}
	der, err := certificateDER([]byte(s))
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*c = Certificate{der: der}
	return nil
}

// File is a file in a declaration, or its content.
type File struct {
	content []byte
	file    string
}

// FileOf declares a file's content.
func FileOf(content []byte) File { return File{content: content} }

// UnmarshalYAML reads a file name.
func (f *File) UnmarshalYAML(n *yaml.Node) error {
	*f = File{}
	return n.Decode(&f.file)
}

// certificateDER reads one certificate in PEM or DER.
func certificateDER(b []byte) ([]byte, error) {
	if block, rest := pem.Decode(b); block != nil {
		if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("the PEM text is not exactly one certificate")
		}
		b = block.Bytes
	}
	cert, err := parseCertificate(b)
	if err != nil {
		return nil, err
	}
	return cert.Raw, nil
}

// LoadEcosystem reads a declaration file. Names of files in it are relative to
// its folder.
func LoadEcosystem(path string) (*Ecosystem, error) {
	raw, err := readFile(path, maxEcosystemFile)
	if err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	dir := filepath.Dir(path)
	eco, err := ParseEcosystem(raw, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return readFile(name, maxReferredFile)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return eco, nil
}

// ParseEcosystem reads a declaration; unknown keys are errors. read returns
// the files that it names.
func ParseEcosystem(doc []byte, read func(name string) ([]byte, error)) (*Ecosystem, error) {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	dec.KnownFields(true)
	var eco Ecosystem
	if err := dec.Decode(&eco); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the declaration is empty; it must at least name its instance")
		}
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the declaration must be a single YAML document")
	}
	if eco.Instance == "" {
		return nil, errors.New("the declaration does not name its instance")
	}
	for _, c := range eco.certificates() {
		if c.file == "" {
			continue
		}
		raw, err := read(c.file)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		if c.der, err = certificateDER(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", c.file, err)
		}
	}
	for i := range eco.TrustedAnchors {
		f := &eco.TrustedAnchors[i]
		var err error
		if f.content, err = read(f.file); err != nil {
			return nil, fmt.Errorf("read trusted anchor: %w", err)
		}
	}
	return &eco, nil
}

// certificates are all places of the declaration where a certificate may stand.
func (eco *Ecosystem) certificates() []*Certificate {
	var all []*Certificate
	responders := func(list []ResponderDecl) {
		for i := range list {
			all = append(all, &list[i].Certificate)
		}
	}
	if s := eco.Settings; s != nil && s.ManagementCertificate != nil {
		all = append(all, s.ManagementCertificate)
	}
	for i := range eco.SecurityServers {
		for j := range eco.SecurityServers[i].Certificates {
			all = append(all, &eco.SecurityServers[i].Certificates[j])
		}
	}
	for i := range eco.CertificationServices {
		ca := &eco.CertificationServices[i]
		all = append(all, &ca.Certificate)
		responders(ca.OCSP)
		for j := range ca.Intermediates {
			all = append(all, &ca.Intermediates[j].Certificate)
			responders(ca.Intermediates[j].OCSP)
		}
	}
	for i := range eco.TimestampingAuthorities {
		all = append(all, &eco.TimestampingAuthorities[i].Certificate)
	}
	return all
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", limit)}
	}
	return b, nil
}
