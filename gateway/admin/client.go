// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kontor/gateway/signer"
)

// Client calls the administration API of a gateway.
type Client struct {
	url  string
	key  string
	http *http.Client
}

// NewClient returns a client for the API at url, such as
// https://127.0.0.1:4000. The server must present exactly the certificate pin:
// the gateway's internal TLS certificate.
func NewClient(url, key string, pin *x509.Certificate) *Client {
	return &Client{strings.TrimSuffix(url, "/"), key, &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // replaced by the pin
			VerifyConnection: func(cs tls.ConnectionState) error {
				if len(cs.PeerCertificates) == 0 || !cs.PeerCertificates[0].Equal(pin) {
					return errors.New("the server is not the gateway whose certificate was given")
				}
				return nil
			},
		}},
	}}
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
	body, err := c.get(ctx, "/api/v1/messagelog/export", v)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
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
	body, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(io.LimitReader(body, 64<<20)).Decode(out)
}

func (c *Client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "X-Road-ApiKey token="+c.key)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the gateway's administration API does not answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var problem struct {
		Detail string `json:"detail"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&problem); err != nil || problem.Detail == "" {
		return nil, fmt.Errorf("the gateway answered with status %d", resp.StatusCode)
	}
	text := problem.Detail
	for _, e := range problem.Errors {
		text += ": " + e.Message
	}
	return nil, errors.New(text)
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
