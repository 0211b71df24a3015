// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"

	"kontor/gateway"
	"kontor/gateway/serverconf"
)

// choice decides whether a list of services has a service, and which of its
// endpoints.
type choice func(c *gateway.Call, s *serverconf.Service) (endpoints []serverconf.Endpoint, ok bool)

// listed is the choice of listMethods: everything, disabled services too.
func listed(_ *gateway.Call, s *serverconf.Service) ([]serverconf.Endpoint, bool) {
	return s.Endpoints, true
}

// allowed is the choice of allowedMethods: services to which the caller has any
// right, and the endpoints that its rights cover.
func allowed(c *gateway.Call, s *serverconf.Service) ([]serverconf.Endpoint, bool) {
	return c.Conf.Allowed(c.Request.Client, s, c.View.InGlobalGroup)
}

// serveMethods lists the services of a client: to REST callers its REST
// services, to SOAP callers its SOAP services.
func serveMethods(choose choice) func(http.ResponseWriter, *http.Request, *gateway.Call) error {
	return func(w http.ResponseWriter, _ *http.Request, c *gateway.Call) error {
		var services []*serverconf.Service
		if owner, ok := c.Conf.Client(c.Request.Service.Owner()); ok {
			services = owner.Services
		}
		if c.Request.SOAP != nil {
			return writeMethodsSOAP(w, c, choose, services)
		}
		return writeMethodsREST(w, c, choose, services)
	}
}

// The answer to REST callers.
type (
	servicesJSON struct {
		Services []serviceJSON `json:"service"`
	}
	serviceJSON struct {
		ObjectType    string         `json:"object_type"`
		Instance      string         `json:"xroad_instance"`
		MemberClass   string         `json:"member_class"`
		MemberCode    string         `json:"member_code"`
		SubsystemCode string         `json:"subsystem_code,omitempty"`
		ServiceCode   string         `json:"service_code"`
		ServiceType   string         `json:"service_type"`
		Endpoints     []endpointJSON `json:"endpoint_list"`
	}
	endpointJSON struct {
		Method string `json:"method"`
		Path   string `json:"path"`
	}
)

func writeMethodsREST(w http.ResponseWriter, c *gateway.Call, choose choice, services []*serverconf.Service) error {
	list := servicesJSON{Services: []serviceJSON{}}
	for _, s := range services {
		if s.Type == serverconf.WSDL {
			continue
		}
		endpoints, ok := choose(c, s)
		if !ok {
			continue
		}
		kind := "REST"
		if s.Type == serverconf.OpenAPI3 {
			kind = "OPENAPI"
		}
		owner := s.ID.Owner()
		m := owner.Member()
		entry := serviceJSON{"SERVICE", m.Instance(), m.Class(), m.Code(), owner.Subsystem(), s.ID.Code(), kind, []endpointJSON{}}
		for _, e := range endpoints {
			if !e.IsBase() {
				entry.Endpoints = append(entry.Endpoints, endpointJSON{e.Method, e.Path})
			}
		}
		list.Services = append(list.Services, entry)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(list)
}

func writeMethodsSOAP(w http.ResponseWriter, c *gateway.Call, choose choice, services []*serverconf.Service) error {
	var body bytes.Buffer
	out := bufio.NewWriter(&body)
	x := xmlWriter{out}
	element := "xroad:" + c.Request.Service.Code() + "Response"
	x.raw("<" + element + ` xmlns:xroad="` + nsXRoad + `" xmlns:id="` + nsIdentifiers + `">` + "\n")
	for _, s := range services {
		if s.Type != serverconf.WSDL {
			continue
		}
		if _, ok := choose(c, s); !ok {
			continue
		}
		x.raw(`    <xroad:service id:objectType="SERVICE">` + "\n")
		x.client("        ", s.ID.Owner())
		x.element("        ", "id:serviceCode", s.ID.Code())
		if version, ok := s.ID.Version(); ok {
			x.element("        ", "id:serviceVersion", version)
		}
		x.raw("    </xroad:service>\n")
	}
	x.raw("</" + element + ">")
	if err := out.Flush(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeXML)
	_, err := w.Write(c.Request.SOAP.Envelope.WithBody(body.Bytes()))
	return err
}
