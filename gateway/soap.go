// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/http1"
	"kontor/gateway/message"
)

// What SOAP does otherwise than REST (X-Road: Message Protocol v4.0).

// envelopeTime is how long a client may take to send the envelope.
const envelopeTime = 30 * time.Second

// maxSOAPName bounds the message id and each identifier of a SOAP header, in
// bytes: they become keys of the message log. In REST the whole head is bounded.
const maxSOAPName = 4 << 10

var errNoContentType = errors.New("it has no Content-Type")

// readClientSOAP reads the envelope of a client's request. Its mistakes are the
// client's, and so is the origin of these faults.
func (g *Gateway) readClientSOAP(r *http.Request, in *idleBody) (*message.Request, *source, error) {
	broken := func(err error) error { return fault.At(fault.Client, soapFault("", "The SOAP request", err)) }
	if r.Method != http.MethodPost {
		return nil, nil, fault.At(fault.Client, fault.New(fault.InvalidHTTPMethod,
			"Must use POST request method instead of %s for SOAP; the paths of REST start with /r1/", r.Method))
	}
	if _, err := message.CheckSOAPAction(r.Header.Values("SOAPAction")); err != nil {
		return nil, nil, broken(err)
	}
	in.until = time.Now().Add(envelopeTime)
	src, part, raw, err := g.readEnvelope(in, r.Header.Get("Content-Type"), message.SOAPRequest)
	if err != nil {
		return nil, nil, broken(err)
	}
	in.until = time.Time{}
	src.broken = broken
	req, err := readSOAPRequest(part, raw, newUUID())
	if err != nil {
		src.close()
		return nil, nil, broken(err)
	}
	return req, src, nil
}

// readEnvelope reads the envelope of a message from an information system.
func (g *Gateway) readEnvelope(in io.Reader, contentType string, want message.Kind) (*source, message.Part, []byte, error) {
	if contentType == "" {
		return nil, message.Part{}, nil, errNoContentType
	}
	dec, err := message.NewSOAPDecoder(in, contentType, want, message.Limits{Body: g.spool.MaxSize})
	if err != nil {
		return nil, message.Part{}, nil, err
	}
	part, err := dec.Next()
	if err != nil {
		return nil, part, nil, err // Next has closed the decoder
	}
	raw, err := part.ReadAll()
	if err != nil {
		dec.Close()
		return nil, part, nil, err
	}
	return &source{dec: dec}, part, raw, nil
}

// readSOAPRequest is message.ReadRequestPart for SOAP, with bounds.
func readSOAPRequest(part message.Part, raw []byte, requestID string) (*message.Request, error) {
	req, err := message.ReadRequestPart(part, raw, requestID)
	if err != nil {
		return nil, err
	}
	if req.ID == "" {
		return nil, fmt.Errorf("%w: id is empty", message.ErrMissingHeaderField)
	}
	for _, name := range []string{req.ID, req.Client.String(), req.Service.String(), req.Server.String()} {
		if len(name) > maxSOAPName {
			return nil, fmt.Errorf("%w: longer than %d bytes", message.ErrIdentifier, maxSOAPName)
		}
	}
	return req, nil
}

// soapCall makes a call of a SOAP service, from the peer's transport header and
// its message. It returns what must be closed after the call.
func soapCall(out *http1.Request, req *message.Request, from http.Header, content message.Content) (io.ReadCloser, error) {
	body, err := message.NewHTTPBody(from.Get("X-Original-Content-Type"), req.SOAP, req.Raw, content)
	if err != nil {
		return nil, bodyFault(err)
	}
	opened, err := body.Open()
	if err != nil {
		return nil, bodyFault(err)
	}
	out.Method, out.Length = http.MethodPost, body.Size
	out.Fields = func(yield func(name, value string) bool) {
		_ = yield("Content-Type", body.ContentType) &&
			yield("SOAPAction", from.Get("X-Original-Soapaction")) &&
			yield("Accept-Encoding", "")
	}
	return opened, nil
}

// readServiceSOAP reads the envelope of a service's answer and puts the request
// hash into it. A fault of the service is an error that holds its very bytes.
func (g *Gateway) readServiceSOAP(req *message.Request, hash string, answer *http.Response) (*message.Response, *source, error) {
	name := req.Service.LogString()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusInternalServerError {
		return nil, nil, fault.New(fault.HTTPError.In(fault.ServiceFailed),
			"Service %s answered with HTTP status %d; a SOAP service answers with 200, or 500 and a fault", name, answer.StatusCode)
	}
	broken := func(err error) error { return soapFault(fault.ServiceFailed, "The answer of service "+name, err) }
	src, part, raw, err := g.readEnvelope(answer.Body, answer.Header.Get("Content-Type"), message.SOAPResponse)
	if err != nil {
		return nil, nil, broken(err)
	}
	src.broken = broken
	resp, err := message.NewSOAPResponse(req, hash, part, raw)
	if err == nil {
		return resp, src, nil
	}
	src.close()
	switch {
	case errors.Is(err, message.ErrFault):
		f, err := fault.ParseSOAP(raw)
		if err != nil {
			return nil, nil, fault.Wrap(fault.InvalidSOAP.In(fault.ServiceFailed), err, "Service %s answered with a malformed SOAP fault", name)
		}
		return nil, nil, f
	case len(raw) == 0:
		return nil, nil, fault.Wrap(fault.InvalidMessage.In(fault.ServiceFailed), err, "Service %s gave an empty answer", name)
	}
	return nil, nil, broken(err)
}

// answerSOAP sends a response to a SOAP client. The status is always 200.
func (g *Gateway) answerSOAP(w http.ResponseWriter, r *http.Request, x *Exchange, resp *answer) error {
	body, err := message.NewHTTPBody(resp.contentType, resp.SOAP, resp.Raw, resp.content)
	var content io.ReadCloser
	if err == nil {
		content, err = body.Open()
	}
	if err != nil {
		f := fault.At(fault.ClientProxy, bodyFault(err))
		g.refuseClient(w, r, f, true)
		return f
	}
	defer content.Close()
	h := w.Header()
	h["Content-Type"] = []string{message.WithUTF8(body.ContentType)}
	h["Content-Length"] = []string{strconv.FormatInt(body.Size, 10)}
	x.Status = http.StatusOK
	w.WriteHeader(http.StatusOK)
	_, err = io.Copy(&idleWriter{w, http.NewResponseController(w), g.limits.Idle}, content)
	return err
}

// soapFault chooses the code for a SOAP message, named by what, that is not as
// it must be. infix may be empty.
func soapFault(infix fault.Code, what string, err error) *fault.Error {
	in := func(c fault.Code) fault.Code {
		if infix == "" {
			return c
		}
		return c.In(infix)
	}
	for _, c := range []struct {
		err  error
		code fault.Code
	}{
		{message.ErrXML, fault.InvalidXML},
		{message.ErrSOAP, fault.InvalidSOAP},
		{message.ErrMissingHeader, fault.MissingHeader},
		{message.ErrMissingHeaderField, fault.MissingHeaderField},
		{message.ErrDuplicateHeader, fault.DuplicateHeaderField},
		{message.ErrProtocolVersion, fault.InvalidProtocolVersion},
		{message.ErrMissingBody, fault.MissingBody},
		{message.ErrBody, fault.InvalidBody},
		{message.ErrInconsistentHeaders, fault.InconsistentHeaders},
		{message.ErrSOAPAction, fault.InvalidSOAPAction},
		{message.ErrFault, fault.InvalidMessage},
		{errNoContentType, fault.InvalidRequest},
		{message.ErrContentType, fault.InvalidContentType},
		{message.ErrMissingHead, fault.MissingSOAP},
		{message.ErrIdentifier, fault.InternalError},
		{message.ErrMalformed, fault.MIMEParsingFailed},
		{message.ErrTooLarge, fault.MIMEParsingFailed},
	} {
		switch {
		case !errors.Is(err, c.err):
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fault.Wrap(in(c.code), err, "%s broke off before its end", what)
		default:
			return fault.Wrap(in(c.code), err, "%s is malformed: %v", what, err)
		}
	}
	return fault.Wrap(in(fault.IOError), err, "%s broke off", what)
}
