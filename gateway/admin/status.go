// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"time"

	"kontor/gateway/renewal"
	"kontor/pki"
)

// Status is how the gateway fares.
type Status struct {
	Server     string              `json:"server"`
	Time       time.Time           `json:"time" doc:"By its clock"`
	Ready      bool                `json:"ready" doc:"It can carry messages"`
	Problems   []string            `json:"problems" doc:"What prevents it, or will"`
	GlobalConf GlobalConfStatus    `json:"global_configuration"`
	OCSP       []OCSPStatus        `json:"ocsp" doc:"Of active certificates"`
	TSAs       []TSAStatus         `json:"time_stamping_authorities"`
	Log        LogStatus           `json:"message_log"`
	Enrolments []renewal.Enrolment `json:"enrolments,omitempty" doc:"Certificates by ACME"`
}

// GlobalConfStatus is how the global configuration fares.
type GlobalConfStatus struct {
	Instance    string    `json:"instance,omitempty"`
	Version     int       `json:"version,omitempty"`
	Generation  string    `json:"generation,omitempty" doc:"Names its contents"`
	Expires     time.Time `json:"expires,omitzero"`
	Valid       bool      `json:"valid"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	Location    string    `json:"location,omitempty" doc:"Where it came from last"`
	LeftOut     []string  `json:"left_out,omitempty" doc:"What of it cannot be used"`
}

// OCSPStatus is the OCSP response of one active certificate.
type OCSPStatus struct {
	Certificate string    `json:"certificate"`
	Usage       pki.Usage `json:"usage"`
	Until       time.Time `json:"until,omitzero" doc:"When the response goes stale; absent without a good one"`
	Problem     string    `json:"problem,omitempty"`
}

// TSAStatus is an approved time-stamping authority.
type TSAStatus struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// LogStatus is how the message log fares.
type LogStatus struct {
	Records         uint64    `json:"records"`
	Unstamped       uint64    `json:"unstamped"`
	OldestUnstamped time.Time `json:"oldest_unstamped,omitzero"`
	LastStamp       time.Time `json:"last_stamp,omitzero"`
	FailingSince    time.Time `json:"failing_since,omitzero" doc:"Time-stamping fails"`
	RefuseAt        time.Time `json:"refuse_at,omitzero" doc:"When messages will be refused because time-stamping fails"`
	StampError      string    `json:"stamp_error,omitempty"`
	Bytes           int64     `json:"bytes"`
	BodyBytes       int64     `json:"body_bytes"`
	FreeBytes       int64     `json:"free_bytes" doc:"-1 if unknown"`
	ReserveBytes    int64     `json:"reserve_bytes"`
	Failed          string    `json:"failed,omitempty"`
}

func (a *API) registerStatus() {
	register(a, operation{id: "get-status", method: http.MethodGet, path: "/status", summary: "Show how the gateway fares: global configuration, OCSP, time-stamps, message log",
		roles: append(readers(), RoleAuditor)}, a.status)
}

func (a *API) status(context.Context, *none) (*item[Status], error) {
	now, view := a.Now(), a.View()
	s := Status{Server: a.Server.String(), Time: now, Problems: []string{}, OCSP: []OCSPStatus{}, TSAs: []TSAStatus{}}
	bad := func(text string) { s.Problems = append(s.Problems, text) }
	s.Ready = true

	g := a.GlobalConf()
	s.GlobalConf = GlobalConfStatus{LastSuccess: g.LastSuccess, Location: g.Location}
	if g.LastError != nil {
		s.GlobalConf.LastError = g.LastError.Error()
	}
	if view == nil {
		s.Ready = false
		bad("there is no global configuration yet; see whether the registry of the anchor can be reached")
	} else {
		s.GlobalConf.Instance, s.GlobalConf.Version, s.GlobalConf.Generation, s.GlobalConf.Expires = view.Instance(), view.Version(), view.Generation(), view.Expires()
		for _, p := range view.Problems() {
			s.GlobalConf.LeftOut = append(s.GlobalConf.LeftOut, p.Error())
		}
		if err := view.Valid(now); err != nil {
			s.Ready = false
			bad("the global configuration is outdated: " + err.Error())
		} else {
			s.GlobalConf.Valid = true
		}
		for _, t := range view.TSAs(a.Server.Owner().Instance()) {
			s.TSAs = append(s.TSAs, TSAStatus{t.Name, t.URL})
		}
		if len(s.TSAs) == 0 {
			bad("no time-stamping authority is approved")
		}
		if other, ok := a.renamed(view); ok {
			bad("the registry knows this security server as " + other.String() + " now; set server to that in the configuration, and restart")
		}
	}

	usable := map[pki.Usage]bool{}
	for _, k := range a.Signer.Status() {
		usable[k.Usage] = usable[k.Usage] || k.Usable
		if k.Active {
			s.OCSP = append(s.OCSP, OCSPStatus{k.Hash, k.Usage, k.OCSPUntil, k.Problem})
		}
	}
	for _, use := range []pki.Usage{pki.Authentication, pki.Signing} {
		if !usable[use] {
			s.Ready = false
			bad("no key for " + string(use) + " can be used; see kontor key list")
		}
	}

	s.Enrolments = a.enrolments()
	for _, e := range s.Enrolments {
		if e.Failures > 0 {
			bad("no new certificate for " + string(e.Usage) + " of " + e.Member + " by ACME: " + e.Problem)
		}
	}

	l := a.Log.Stats()
	s.Log = LogStatus{Records: l.Records, Unstamped: l.Unstamped, OldestUnstamped: l.OldestUnstamped, LastStamp: l.LastStamp, FailingSince: l.FailingSince,
		RefuseAt: l.RefuseAt, Bytes: l.Bytes, BodyBytes: l.BodyBytes, FreeBytes: l.FreeBytes, ReserveBytes: l.Reserve}
	if l.StampError != nil {
		s.Log.StampError = l.StampError.Error()
	}
	switch {
	case l.Failed != nil:
		s.Ready, s.Log.Failed = false, l.Failed.Error()
		bad("the message log has failed; restart the gateway: " + l.Failed.Error())
	case !l.RefuseAt.IsZero() && now.After(l.RefuseAt):
		s.Ready = false
		bad("messages are refused, for time-stamping has failed since " + l.FailingSince.UTC().Format(time.RFC3339))
	case !l.FailingSince.IsZero():
		bad("time-stamping has failed since " + l.FailingSince.UTC().Format(time.RFC3339))
	}
	if l.FreeBytes >= 0 && l.Reserve > 0 && l.FreeBytes <= l.Reserve {
		s.Ready = false
		bad("the disk of the message log is full up to its reserve")
	}
	return answer("", s), nil
}
