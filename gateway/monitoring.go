// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"net/http"

	"kontor/gateway/opmonitor"
	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

var errMonitoring = errors.New("only the owner of the security server and the instance's monitoring client may ask")

// monitors tells whether the call comes from the client that the instance's
// global configuration lets read all monitoring data.
func (c *Call) monitors() bool {
	m := c.View.MonitoringClient()
	return !m.IsZero() && c.Request.Client == m
}

// owner tells whether the call comes from the owner of this security server.
func (c *Call) owner() bool { return c.Request.Client == c.Server.Owner().Client() }

// MonitoringServices returns the built-in services by which X-Road's monitoring
// asks security servers (X-Road: Operational Monitoring Protocol; Monitoring
// Messages). With limitRemote the monitoring client is told less about the
// machine than its owner.
func MonitoringServices(s *opmonitor.Services, limitRemote bool) []Builtin {
	return []Builtin{{
		Code: serverconf.GetOperationalData, SOAP: true, OwnerOnly: true,
		Serve: func(w http.ResponseWriter, r *http.Request, c *Call) error {
			party := c.Request.Client
			// The owner must name the server: it may have several.
			if c.monitors() || c.owner() && c.Request.Server == c.Server {
				party = id.Client{}
			}
			return s.OperationalData(r.Context(), w, c.Request, party)
		},
	}, {
		Code: serverconf.GetHealthData, SOAP: true, OwnerOnly: true,
		Serve: func(w http.ResponseWriter, _ *http.Request, c *Call) error { return s.HealthData(w, c.Request) },
	}, {
		Code: serverconf.GetMetrics, SOAP: true, OwnerOnly: true,
		Authorise: func(c *Call) error {
			if !c.monitors() && !c.owner() {
				return errMonitoring
			}
			return nil
		},
		Serve: func(w http.ResponseWriter, _ *http.Request, c *Call) error {
			return s.Metrics(w, c.Request, c.owner() || !limitRemote)
		},
	}}
}
