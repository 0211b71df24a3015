// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"kontor/gateway/opmonitor"
	"kontor/gateway/serverconf"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// keepRecord gives what is to be kept of an exchange to the operational data.
func (g *Gateway) keepRecord(x *Exchange) {
	if g.records == nil {
		return
	}
	r := opmonitor.Record{
		ServerType: opmonitor.Client, RequestIn: opmonitor.Millis(x.Start),
		RequestOut: opmonitor.Millis(x.RequestOut), ResponseIn: opmonitor.Millis(x.ResponseIn), ResponseOut: opmonitor.Millis(x.ResponseOut),
		Client: x.Client, Service: x.Service, MessageID: x.MessageID, RequestID: x.RequestID,
		ClientAddress: x.own, ServiceAddress: x.opposite, Version: Version,
		Succeeded: x.succeeded(),
	}
	if x.Side == "server" {
		r.ServerType, r.ClientAddress, r.ServiceAddress = opmonitor.Producer, x.opposite, x.own
	}
	if x.builtin { // X-Road: nothing is asked, so these are the same
		r.RequestOut, r.ResponseIn = r.RequestIn, r.ResponseOut
	}
	if req := x.request; req != nil {
		r.UserID, r.Issue = req.UserID, req.Issue
		r.PartyClass, r.PartyCode = req.RepresentedParty.Class(), req.RepresentedParty.Code()
		r.RequestSize, r.RequestAttachments = opmonitor.Num(int64(len(req.Raw))+x.In), opmonitor.Num(0)
		r.ServiceType, r.ProtocolVersion, r.RESTMethod, r.Path = serverconf.REST, "1", x.Method, x.Path
		if req.SOAP != nil {
			r.ServiceType, r.ProtocolVersion, r.RESTMethod, r.Path = serverconf.WSDL, req.SOAP.Envelope.ProtocolVersion, "", ""
			r.RequestSize, r.RequestMIMESize, r.RequestAttachments = sizes(req.Raw, x.In, x.sent)
		}
		if x.service != nil {
			r.ServiceType = x.service.Type
		}
	}
	if resp := x.response; resp != nil {
		r.ResponseSize, r.ResponseAttachments = opmonitor.Num(int64(len(resp.Raw))+x.Out), opmonitor.Num(0)
		if resp.SOAP != nil {
			r.ResponseSize, r.ResponseMIMESize, r.ResponseAttachments = sizes(resp.Raw, x.Out, x.got)
		} else {
			r.Status = opmonitor.Num(int64(x.Status))
		}
	}
	if x.Err != nil {
		r.FaultCode, r.FaultString = "aborted", "The client did not take the whole answer"
		if f := asFault(x.Err); f != nil {
			r.FaultCode, r.FaultString = f.Code(), f.Text()
		}
	}
	g.records.Add(&r)
}

// sizes returns the sizes of a SOAP message: of its envelope, of all of it if it
// has attachments, and their number.
func sizes(envelope []byte, attached int64, n int) (size, all, count opmonitor.Number) {
	size, count = opmonitor.Num(int64(len(envelope))), opmonitor.Num(int64(n))
	if n > 0 {
		all = opmonitor.Num(int64(len(envelope)) + attached)
	}
	return size, all, count
}

// address returns the registered address of a security server, "" if it has
// none.
func address(view *globalconf.View, server id.SecurityServer) string {
	s, ok := view.Server(server)
	if !ok {
		return ""
	}
	return s.Address
}
