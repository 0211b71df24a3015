// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"fmt"
	"time"

	"kontor/registry/id"
)

// PrivateParams are the private parameters of one instance, for its own
// security servers only.
type PrivateParams struct {
	Instance           string
	Anchors            []Anchor // trusted anchors of federated instances
	RegistrationURL    string   // where authCertReg requests go
	RegistrationCert   []byte   // its TLS certificate, DER or PEM; nil if none
	ManagementProvider id.Client
	TimestampInterval  time.Duration // whole seconds, positive
}

// ParsePrivateParams reads a document of the given configuration version.
func ParsePrivateParams(doc []byte, version int) (*PrivateParams, error) {
	return parsePrivate(string(doc), version)
}

func parsePrivate(doc string, version int) (*PrivateParams, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	d := newScanner(doc)
	d.root("conf")
	p := &PrivateParams{Instance: d.required("instanceIdentifier")}
	if d.err == nil && collapse(p.Instance) == "" {
		d.fail("instanceIdentifier is blank")
	}
	for d.at("configurationAnchor") {
		d.enter("", "")
		a := d.anchor()
		d.leave()
		for _, b := range p.Anchors {
			if a.Instance == b.Instance && d.err == nil {
				d.fail("two anchors for instance %q", a.Instance)
			}
		}
		p.Anchors = append(p.Anchors, a)
	}
	d.expect("managementService")
	d.enter("", "")
	p.RegistrationURL = d.required("authCertRegServiceAddress")
	if s, ok := d.optional("authCertRegServiceCert"); ok {
		p.RegistrationCert = d.base64(s)
	}
	d.expect("managementRequestServiceProviderId")
	p.ManagementProvider = d.clientID()
	d.leave()
	p.TimestampInterval = d.seconds(d.required("timeStampingIntervalSeconds"), 1)
	if version >= 3 {
		d.skipRest()
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return p, nil
}

// Marshal writes the document for a configuration version.
func (p *PrivateParams) Marshal(version int) ([]byte, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	switch {
	case p.Instance == "" || p.RegistrationURL == "" || p.ManagementProvider.IsZero():
		return nil, fmt.Errorf("%w: private parameters need an instance, a registration address and a management service provider", ErrMalformed)
	case p.TimestampInterval < time.Second || p.TimestampInterval%time.Second != 0:
		return nil, fmt.Errorf("%w: time-stamping interval %v", ErrMalformed, p.TimestampInterval)
	}
	w := &xmlWriter{}
	w.document("conf")
	w.leaf("instanceIdentifier", p.Instance)
	for i := range p.Anchors {
		if err := p.Anchors[i].check(); err != nil {
			return nil, err
		}
		w.begin("configurationAnchor", "")
		w.anchor(&p.Anchors[i])
		w.end("configurationAnchor")
	}
	w.begin("managementService", "")
	w.leaf("authCertRegServiceAddress", p.RegistrationURL)
	if p.RegistrationCert != nil {
		w.base64("authCertRegServiceCert", p.RegistrationCert)
	}
	w.clientID("managementRequestServiceProviderId", p.ManagementProvider)
	w.end("managementService")
	w.seconds("timeStampingIntervalSeconds", p.TimestampInterval)
	doc, err := w.close("conf")
	if err != nil {
		return nil, err
	}
	if _, err := ParsePrivateParams(doc, version); err != nil {
		return nil, err
	}
	return doc, nil
}

// MonitoringParams name the client that may read all monitoring data.
type MonitoringParams struct {
	Client id.Client // zero if nobody may
}

// ParseMonitoringParams reads the optional part MONITORING.
func ParseMonitoringParams(doc []byte) (*MonitoringParams, error) {
	d := newScanner(string(doc))
	p := &MonitoringParams{}
	d.root("conf")
	d.expect("monitoringClient")
	d.enter("", "")
	if d.at("monitoringClientId") {
		p.Client = d.clientID()
	}
	d.leave()
	if err := d.finish(); err != nil {
		return nil, err
	}
	return p, nil
}

// Marshal writes the part.
func (p *MonitoringParams) Marshal() ([]byte, error) {
	w := &xmlWriter{}
	w.document("conf")
	w.begin("monitoringClient", "")
	if !p.Client.IsZero() {
		w.clientID("monitoringClientId", p.Client)
	}
	w.end("monitoringClient")
	return w.close("conf")
}

// FetchIntervalParams say how often OCSP responses are fetched.
type FetchIntervalParams struct {
	Interval time.Duration // whole seconds, at least minFetchInterval
}

// minFetchInterval is X-Road's lower bound for the OCSP fetch interval.
const minFetchInterval = 60 * time.Second

// ParseFetchIntervalParams reads the optional part FETCHINTERVAL.
func ParseFetchIntervalParams(doc []byte) (*FetchIntervalParams, error) {
	d := newScanner(string(doc))
	d.root("conf")
	p := &FetchIntervalParams{Interval: d.seconds(d.required("ocspFetchInterval"), int64(minFetchInterval/time.Second))}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return p, nil
}

// Marshal writes the part.
func (p *FetchIntervalParams) Marshal() ([]byte, error) {
	if p.Interval < minFetchInterval || p.Interval%time.Second != 0 || p.Interval > maxSeconds*time.Second {
		return nil, fmt.Errorf("%w: OCSP fetch interval %v", ErrMalformed, p.Interval)
	}
	w := &xmlWriter{}
	w.document("conf")
	w.seconds("ocspFetchInterval", p.Interval)
	return w.close("conf")
}

// NextUpdateParams say whether the nextUpdate field of OCSP responses counts.
type NextUpdateParams struct {
	Verify bool
}

// ParseNextUpdateParams reads the optional part NEXTUPDATE.
func ParseNextUpdateParams(doc []byte) (*NextUpdateParams, error) {
	d := newScanner(string(doc))
	d.root("conf")
	p := &NextUpdateParams{Verify: d.boolean(d.required("verifyNextUpdate"))}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return p, nil
}

// Marshal writes the part.
func (p *NextUpdateParams) Marshal() ([]byte, error) {
	w := &xmlWriter{}
	w.document("conf")
	w.leaf("verifyNextUpdate", fmt.Sprint(p.Verify))
	return w.close("conf")
}

func checkVersion(v int) error {
	if v < MinVersion || v > CurrentVersion {
		return fmt.Errorf("%w: %d", ErrVersion, v)
	}
	return nil
}
