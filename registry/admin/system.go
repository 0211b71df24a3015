// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"reflect"
	"time"

	"kontor/registry"
	"kontor/registry/id"
)

// Parameters apply to the whole instance.
type Parameters struct {
	Address               string `json:"address" doc:"Where clients reach the registry: host, with a port if that is not 80"`
	ConfigurationValidity int    `json:"configuration_validity" doc:"How long a published configuration may be used, in seconds"`
	OCSPFreshness         int    `json:"ocsp_freshness" doc:"How old an OCSP response may be, in seconds"`
	TimestampingInterval  int    `json:"timestamping_interval" doc:"Between two batch time-stamps, in seconds"`
	OCSPFetchInterval     int    `json:"ocsp_fetch_interval" doc:"Between two OCSP requests for a certificate, in seconds; 0: the default"`
	IgnoreOCSPNextUpdate  bool   `json:"ignore_ocsp_next_update" doc:"Accept OCSP responses past their nextUpdate"`
	MinimumVersion        int    `json:"minimum_version" doc:"Oldest configuration version published, 2 to 6"`

	AutoApproveCertificates bool `json:"auto_approve_certificates" doc:"Approve registrations of authentication certificates at once if the owner is a member"`
	AutoApproveClients      bool `json:"auto_approve_clients" doc:"Approve registrations of clients at once if server and member exist"`
	AutoApproveOwners       bool `json:"auto_approve_owners" doc:"Approve changes of a security server's owner at once"`
}

// ParameterChange is the body that changes parameters; what is absent stays.
type ParameterChange struct {
	Address               *string `json:"address,omitempty"`
	ConfigurationValidity *int    `json:"configuration_validity,omitempty"`
	OCSPFreshness         *int    `json:"ocsp_freshness,omitempty"`
	TimestampingInterval  *int    `json:"timestamping_interval,omitempty"`
	OCSPFetchInterval     *int    `json:"ocsp_fetch_interval,omitempty"`
	IgnoreOCSPNextUpdate  *bool   `json:"ignore_ocsp_next_update,omitempty"`
	MinimumVersion        *int    `json:"minimum_version,omitempty"`

	AutoApproveCertificates *bool `json:"auto_approve_certificates,omitempty"`
	AutoApproveClients      *bool `json:"auto_approve_clients,omitempty"`
	AutoApproveOwners       *bool `json:"auto_approve_owners,omitempty"`
}

// Management tells who offers the management services and where.
type Management struct {
	Provider    *id.Client   `json:"provider,omitempty" doc:"Subsystem that offers the management services; nothing is published without one"`
	Address     string       `json:"address,omitempty" doc:"Where authentication certificates are registered; absent: port 4001 of the registry"`
	Certificate *Certificate `json:"certificate,omitempty" doc:"TLS certificate of that address"`
}

// ManagementChange is the body that changes the management services; what is
// absent stays, what is empty is removed.
type ManagementChange struct {
	Provider    *id.Client `json:"provider,omitempty"`
	Address     *string    `json:"address,omitempty"`
	Certificate *string    `json:"certificate,omitempty" doc:"PEM, or base64 of DER"`
}

// Monitoring tells who may ask every security server for its metrics.
type Monitoring struct {
	Client *id.Client `json:"client,omitempty" doc:"Member or subsystem; absent: nobody"`
}

// Status is the condition of the registry.
type Status struct {
	registry.Status
	Minimum int `json:"minimum_version"`
}

// Entry is one entry of the journal.
type Entry struct {
	Number  uint64    `json:"number"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	Why     string    `json:"why,omitempty"`
	Request string    `json:"request,omitempty" doc:"What asked for it: a call, a management request, a file"`
	Change  string    `json:"change"`
}

// Journal is a page of the journal.
type Journal struct {
	Entries []Entry `json:"entries"`
	Next    uint64  `json:"next,omitempty" doc:"from of the next page; absent: this is the last"`
}

func clientOrNil(c id.Client) *id.Client {
	if c.IsZero() {
		return nil
	}
	return &c
}

func (a *API) registerSystem() {
	administrator := []string{SystemAdministrator}
	read(a, operation{id: "show-status", path: "/status", summary: "Show what is published and whether the registry is healthy"},
		func(_ *struct{}, st *registry.State) (Status, error) {
			return Status{a.cfg.Registry.Status(), st.System().MinimumVersion}, nil
		})
	read(a, operation{id: "show-system-parameters", path: "/system-parameters", summary: "Show the system parameters"},
		func(_ *struct{}, st *registry.State) (Parameters, error) {
			s := st.System()
			return Parameters{s.Address, s.ConfigurationValidity, s.OCSPFreshness, s.TimestampingInterval, s.OCSPFetchInterval, s.IgnoreOCSPNextUpdate, s.MinimumVersion,
				s.AutoApproveCertificates, s.AutoApproveClients, s.AutoApproveOwners}, nil
		})
	type set struct {
		ChangeTerms
		Body ParameterChange
	}
	change(a, operation{id: "change-system-parameters", method: http.MethodPatch, path: "/system-parameters", summary: "Change system parameters", roles: administrator},
		func(in *set, st *registry.State) ([]registry.Change, error) {
			s, b := st.System(), in.Body
			assign(&s.Address, b.Address)
			assign(&s.ConfigurationValidity, b.ConfigurationValidity)
			assign(&s.OCSPFreshness, b.OCSPFreshness)
			assign(&s.TimestampingInterval, b.TimestampingInterval)
			assign(&s.OCSPFetchInterval, b.OCSPFetchInterval)
			assign(&s.IgnoreOCSPNextUpdate, b.IgnoreOCSPNextUpdate)
			assign(&s.MinimumVersion, b.MinimumVersion)
			assign(&s.AutoApproveCertificates, b.AutoApproveCertificates)
			assign(&s.AutoApproveClients, b.AutoApproveClients)
			assign(&s.AutoApproveOwners, b.AutoApproveOwners)
			return setSystem(st, s), nil
		})

	read(a, operation{id: "show-management-services", path: "/management-services", summary: "Show who offers the management services"},
		func(_ *struct{}, st *registry.State) (Management, error) {
			s := st.System()
			out := Management{Provider: clientOrNil(s.ManagementProvider), Address: s.ManagementAddress}
			if len(s.ManagementCertificate) > 0 {
				c := certificateOfDER(s.ManagementCertificate)
				out.Certificate = &c
			}
			return out, nil
		})
	type manage struct {
		ChangeTerms
		Body ManagementChange
	}
	change(a, operation{id: "change-management-services", method: http.MethodPatch, path: "/management-services", summary: "Change who offers the management services", roles: administrator},
		func(in *manage, st *registry.State) ([]registry.Change, error) {
			s := st.System()
			assign(&s.ManagementProvider, in.Body.Provider)
			assign(&s.ManagementAddress, in.Body.Address)
			if in.Body.Certificate != nil {
				der, err := derOf(*in.Body.Certificate)
				if err != nil {
					return nil, err
				}
				s.ManagementCertificate = der
			}
			return setSystem(st, s), nil
		})

	read(a, operation{id: "show-monitoring-client", path: "/monitoring-client", summary: "Show the central monitoring client"},
		func(_ *struct{}, st *registry.State) (Monitoring, error) {
			return Monitoring{clientOrNil(st.System().MonitoringClient)}, nil
		})
	type monitor struct {
		ChangeTerms
		Body ClientBody
	}
	change(a, operation{id: "change-monitoring-client", method: http.MethodPut, path: "/monitoring-client", summary: "Name the central monitoring client", roles: administrator},
		func(in *monitor, st *registry.State) ([]registry.Change, error) {
			s := st.System()
			s.MonitoringClient = in.Body.Client
			return setSystem(st, s), nil
		})
	change(a, operation{id: "delete-monitoring-client", method: http.MethodDelete, path: "/monitoring-client", summary: "Have no central monitoring client", roles: administrator},
		func(_ *struct{ ChangeTerms }, st *registry.State) ([]registry.Change, error) {
			s := st.System()
			s.MonitoringClient = id.Client{}
			return setSystem(st, s), nil
		})
}

// setSystem changes the parameters if they differ.
func setSystem(st *registry.State, to registry.System) []registry.Change {
	if len(to.ManagementCertificate) == 0 {
		to.ManagementCertificate = nil
	}
	if reflect.DeepEqual(st.System(), to) {
		return nil
	}
	return []registry.Change{&registry.SetSystem{System: to}}
}
