// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxAnswer = 64 << 20
	// maxWaits and maxWait bound how long a call waits for its turn when the
	// server says that there are too many.
	maxWaits = 5
	maxWait  = 10 * time.Second
)

// Client calls an administration API.
type Client struct {
	url  string
	key  string
	what string
	http *http.Client
}

// NewClient returns a client for the API at url, such as
// https://127.0.0.1:4000, of what, such as "gateway". The server must present
// exactly the certificate pin.
func NewClient(url, key, what string, pin *x509.Certificate) *Client {
	return &Client{strings.TrimSuffix(url, "/"), key, what, &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // replaced by the pin
			VerifyConnection: func(cs tls.ConnectionState) error {
				if len(cs.PeerCertificates) == 0 || !cs.PeerCertificates[0].Equal(pin) {
					return errStranger
				}
				return nil
			},
		}},
	}}
}

// Request is one call.
type Request struct {
	Method string
	Path   string // escaped
	Query  url.Values
	Header http.Header
	Body   any // sent as JSON; nil: none
}

// keyHeader names a change, so that it may be asked for again and is done once.
const keyHeader = "Idempotency-Key"

// Do makes a call. Answers that are not 2xx are errors: a *Problem if the
// server explains it. When told that there are too many calls, or that the same
// call is under way, it waits. When the connection breaks, a call with an
// Idempotency-Key is repeated once.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return nil, err
		}
	}
	for waits := 0; ; waits++ {
		resp, err := c.send(ctx, r, body)
		var broken *url.Error
		if errors.As(err, &broken) && ctx.Err() == nil && r.Header.Get(keyHeader) != "" { // it may have been done, or not
			resp, err = c.send(ctx, r, body)
		}
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 {
			return resp, nil
		}
		problem := c.problem(resp)
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		wait := time.Duration(seconds) * time.Second
		var p *Problem
		again := resp.StatusCode == http.StatusTooManyRequests || errors.As(problem, &p) && p.Code == CodeUnderWay
		if !again || err != nil || wait > maxWait || waits == maxWaits {
			return nil, problem
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (c *Client) send(ctx context.Context, r Request, body []byte) (*http.Response, error) {
	target := c.url + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "X-Road-ApiKey token="+c.key)
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(err, errStranger):
		return nil, fmt.Errorf("what answers at %s is not the %s whose certificate was given; if that has a new one, take it from there", c.url, c.what)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("the administration API of the %s does not answer: %w; does the %s run, and is this the address of its listen.admin?", c.what, err, c.what)
	}
	return nil, fmt.Errorf("the administration API of the %s does not answer: %w; is this the address of its listen.admin?", c.what, err)
}

var errStranger = errors.New("another certificate")

// problem reads why a call was refused.
func (c *Client) problem(resp *http.Response) error {
	defer resp.Body.Close()
	p := new(Problem)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	err := errors.New("no problem document")
	if kind == problemType {
		err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p)
	}
	if err != nil || p.Detail == "" {
		return fmt.Errorf("the %s answered with status %d", c.what, resp.StatusCode)
	}
	// Some remedies are for those who write requests; the caller did not.
	switch {
	case p.Code == CodeKeyNeeded:
		p.Detail, p.Remedy = fmt.Sprintf("the %s does not know the API key", c.what), "it may have been deleted there, or be that of another server; have a new one made"
	case p.Status == http.StatusNotFound && p.Detail == nothingHere:
		p.Detail, p.Remedy = fmt.Sprintf("the %s does not know this call", c.what), "it is of another version than this program; update the older one"
	case p.Remedy == seeSchema:
		p.Remedy = "correct that and repeat the call"
	}
	return p
}

// Once names a change with an Idempotency-Key of its own, unless it has one.
func Once(r Request) Request {
	if r.Header.Get(keyHeader) == "" {
		r.Header = r.Header.Clone()
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set(keyHeader, rand.Text())
	}
	return r
}

// Decode makes a call and reads its JSON answer into out, and returns the
// answer's header.
func (c *Client) Decode(ctx context.Context, r Request, out any) (http.Header, error) {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return nil, fmt.Errorf("answer of the %s: %w", c.what, err)
	}
	return resp.Header, nil
}
