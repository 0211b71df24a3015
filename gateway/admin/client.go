// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kontor/gateway/signer"
	"kontor/registry/guard"
)

// Client calls the administration API of a gateway.
type Client struct{ api *guard.Client }

// NewClient returns a client for the API at url, such as
// https://127.0.0.1:4000. The server must present exactly the certificate pin:
// the gateway's internal TLS certificate.
func NewClient(url, key string, pin *x509.Certificate) *Client {
	return &Client{guard.NewClient(url, key, "gateway", pin)}
}

// Find returns records of the message log.
func (c *Client) Find(ctx context.Context, s Selection) ([]Record, error) {
	var out struct {
		Records []Record `json:"records"`
	}
	err := c.decode(ctx, "/api/v1/messagelog", s.values(), &out)
	return out.Records, err
}

// Export writes a zip of containers to w.
func (c *Client) Export(ctx context.Context, s Selection, force bool, w io.Writer) error {
	v := s.values()
	v.Set("force", strconv.FormatBool(force))
	resp, err := c.api.Do(ctx, guard.Request{Method: http.MethodGet, Path: "/api/v1/messagelog/export", Query: v})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// Keys returns the keys of the gateway.
func (c *Client) Keys(ctx context.Context) ([]signer.KeyStatus, error) {
	var out struct {
		Keys []signer.KeyStatus `json:"keys"`
	}
	err := c.decode(ctx, "/api/v1/keys", nil, &out)
	return out.Keys, err
}

func (c *Client) decode(ctx context.Context, path string, query url.Values, out any) error {
	_, err := c.api.Decode(ctx, guard.Request{Method: http.MethodGet, Path: path, Query: query}, out)
	return err
}

func (s Selection) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("message_id", s.MessageID)
	set("client", s.Client)
	set("service", s.Service)
	set("side", s.Side)
	set("direction", s.Direction)
	if !s.From.IsZero() {
		v.Set("from", s.From.Format(time.RFC3339Nano))
	}
	if !s.To.IsZero() {
		v.Set("to", s.To.Format(time.RFC3339Nano))
	}
	if s.After > 0 {
		v.Set("after", strconv.FormatUint(s.After, 10))
	}
	if s.Limit > 0 {
		v.Set("limit", strconv.Itoa(s.Limit))
	}
	if s.Newest {
		v.Set("newest", "true")
	}
	return v
}
