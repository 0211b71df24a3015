// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"mime"
	"net/http"
	"strings"

	"kontor/gateway/fault"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// ListClients serves X-Road's "GET /listClients": the members and subsystems of
// the instance, or of the federated one that the parameter xRoadInstance names.
// The answer is JSON if the asker accepts application/json, whatever else it
// prefers, and otherwise XML. spelling is that of codes of faults. The path is not
// examined.
func ListClients(view func() (*globalconf.View, error), spelling fault.Style) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := view()
		if err != nil {
			refuse(w, spelling, err)
			return
		}
		instance := r.URL.Query().Get("xRoadInstance")
		if strings.TrimSpace(instance) == "" {
			instance = v.Instance()
		}
		if _, _, ok := v.SharedParams(instance); !ok {
			refuse(w, spelling, fault.New(fault.InternalError, "Shared params for instance identifier %s not found", instance))
			return
		}
		out := bufio.NewWriterSize(patientWriter{w}, 32<<10)
		write := writeClientsXML
		if acceptsJSON(r.Header.Values("Accept")) {
			write = writeClientsJSON
			w.Header().Set("Content-Type", typeJSON)
		} else {
			w.Header().Set("Content-Type", typeXML)
		}
		write(out, v, instance)
		if err := out.Flush(); err != nil {
			panic(http.ErrAbortHandler) // half a list must not look whole
		}
	})
}

// acceptsJSON tells whether application/json is among the accepted types; their
// order and quality do not count (X-Road: Service Metadata Protocol, section 2).
// What is not a type is passed over.
func acceptsJSON(accept []string) bool {
	for _, line := range accept {
		for _, item := range strings.Split(line, ",") {
			if media, _, err := mime.ParseMediaType(item); err == nil && media == "application/json" {
				return true
			}
		}
	}
	return false
}

// clientJSON is one member or subsystem.
type clientJSON struct {
	ID            identifierJSON `json:"id"`
	Name          string         `json:"name,omitempty"`
	SubsystemName string         `json:"subsystem_name,omitempty"`
}

type identifierJSON struct {
	ObjectType    string `json:"object_type"`
	Instance      string `json:"xroad_instance"`
	MemberClass   string `json:"member_class"`
	MemberCode    string `json:"member_code"`
	SubsystemCode string `json:"subsystem_code,omitempty"`
}

// names returns the names of a client: of the member, and of the subsystem.
func names(v *globalconf.View, c id.Client, name string) (member, subsystem string) {
	if c.IsMember() {
		return name, ""
	}
	return v.Name(c.Member().Client()), name
}

func objectType(c id.Client) string {
	if c.IsMember() {
		return "MEMBER"
	}
	return "SUBSYSTEM"
}

// writeClientsJSON writes one client after the other. The writer repeats its
// first error.
func writeClientsJSON(out *bufio.Writer, v *globalconf.View, instance string) {
	_, _ = out.WriteString(`{"member":[`)
	comma := ""
	for c, name := range v.Clients(instance) {
		member, subsystem := names(v, c, name)
		m := c.Member()
		b, err := json.Marshal(clientJSON{identifierJSON{objectType(c), m.Instance(), m.Class(), m.Code(), c.Subsystem()}, member, subsystem})
		if err != nil {
			panic(err) // strings only
		}
		_, _ = out.WriteString(comma)
		_, _ = out.Write(b)
		comma = ","
	}
	_, _ = out.WriteString("]}")
}

// writeClientsXML writes one client after the other, in the form of X-Road's
// schema. The writer repeats its first error.
func writeClientsXML(out *bufio.Writer, v *globalconf.View, instance string) {
	x := xmlWriter{out}
	x.raw(`<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n" +
		`<xroad:clientList xmlns:id="` + nsIdentifiers + `" xmlns:xroad="` + nsXRoad + `">` + "\n")
	for c, name := range v.Clients(instance) {
		member, subsystem := names(v, c, name)
		x.raw("    <xroad:member>\n        <xroad:id id:objectType=\"" + objectType(c) + "\">\n")
		x.client("            ", c)
		x.raw("        </xroad:id>\n")
		x.optional("        ", "xroad:name", member)
		x.optional("        ", "xroad:subsystemName", subsystem)
		x.raw("    </xroad:member>\n")
	}
	x.raw("</xroad:clientList>\n")
}

// xmlWriter writes XML line by line. What it writes to repeats its first error.
type xmlWriter struct{ out *bufio.Writer }

func (x xmlWriter) raw(s string) { _, _ = x.out.WriteString(s) }

func (x xmlWriter) element(indent, name, text string) {
	x.raw(indent + "<" + name + ">")
	_ = xml.EscapeText(x.out, []byte(text))
	x.raw("</" + name + ">\n")
}

// optional writes an element unless it would be empty.
func (x xmlWriter) optional(indent, name, text string) {
	if text != "" {
		x.element(indent, name, text)
	}
}

// client writes the parts of a client's identifier.
func (x xmlWriter) client(indent string, c id.Client) {
	m := c.Member()
	x.element(indent, "id:xRoadInstance", m.Instance())
	x.element(indent, "id:memberClass", m.Class())
	x.element(indent, "id:memberCode", m.Code())
	x.optional(indent, "id:subsystemCode", c.Subsystem())
}
