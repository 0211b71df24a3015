// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

const (
	maxAnswer   = 1 << 20
	sendTimeout = 60 * time.Second // X-Road's for its own requests
)

// Client sends management requests to one address.
type Client struct {
	URL  string
	HTTP *http.Client // should not follow redirects
}

// Registration returns a client for the address at which authentication
// certificates are registered. The server must present exactly the certificate,
// as the global configuration says, whatever it is called and whoever issued it.
func Registration(url string, cert *x509.Certificate) *Client {
	return &Client{url, &http.Client{
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives:   true,
			TLSHandshakeTimeout: 20 * time.Second,
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				InsecureSkipVerify: true, // VerifyConnection decides instead
				VerifyConnection: func(s tls.ConnectionState) error {
					if cert == nil || len(s.PeerCertificates) == 0 || !s.PeerCertificates[0].Equal(cert) {
						return errors.New("the certificate is not the one that the global configuration names for registration")
					}
					return nil
				},
			},
		},
	}}
}

// Send sends a request and returns the number that the registry gave it. A
// refusal is a *Fault. Sent again, the same request is answered with the same
// number, or with a fault that names the reason if it was declined.
func (c *Client) Send(ctx context.Context, m *Message) (uint64, error) {
	contentType, body := m.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, io.NopCloser(bytes.NewReader(body))) // of unknown length: chunked
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := c.HTTP.Do(req)
	if err != nil {
		return 0, fmt.Errorf("send management request: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, fmt.Errorf("read answer to management request: %w", err)
	}
	base, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // no type is a wrong one
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusInternalServerError || base != "text/xml" || len(answer) > maxAnswer {
		return 0, fmt.Errorf("the management service answered %s, %d bytes of %q", res.Status, len(answer), base)
	}
	number, err := ParseAnswer(m.Request, answer)
	if err == nil && res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the management service answered %s without a fault", res.Status)
	}
	return number, err
}
