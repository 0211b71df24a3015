// SPDX-License-Identifier: Apache-2.0

package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// stampTimeout bounds one authority's answer.
	stampTimeout = 30 * time.Second
	// maxSkew is the tolerated difference between an authority's clock and ours.
	// Beyond it, OCSP responses obtained by our clock would be stale or from the
	// future at the stamped time, and the evidence worthless.
	maxSkew = time.Hour
)

// ClientConfig configures a Client. The zero value is useful.
type ClientConfig struct {
	HTTP *http.Client     // nil: the default transport; redirects are never followed
	Now  func() time.Time // nil: time.Now
}

// Client obtains time-stamps. It is safe for concurrent use.
type Client struct {
	http *http.Client
	now  func() time.Time
}

// NewClient makes a client.
func NewClient(c ClientConfig) *Client {
	h := http.Client{}
	if c.HTTP != nil {
		h = *c.HTTP
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{http: &h, now: c.Now}
}

// Stamp has the authority at url stamp the SHA-512 digest of message, verifies
// the token as Verify does and embeds the approved certificate in it, so that it
// can be verified from itself later. Errors are those of Verify, and
// ErrUnavailable, ErrRejected and ErrClock.
func (c *Client) Stamp(ctx context.Context, url string, message []byte, approved []*x509.Certificate) (*Token, error) {
	query, err := newRequest(crypto.SHA512, digest(crypto.SHA512, message))
	if err != nil {
		return nil, fmt.Errorf("time-stamp request: %w", err)
	}
	answer, err := c.post(ctx, url, query)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, url, err)
	}
	token, err := parseResponse(answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	t, err := c.accept(token, message, approved)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return t, nil
}

func (c *Client) accept(token, message []byte, approved []*x509.Certificate) (*Token, error) {
	s, err := parseDERToken(token)
	if err != nil {
		return nil, err
	}
	if s.info.hash != crypto.SHA512 || !bytes.Equal(digest(crypto.SHA512, message), s.info.hashed) || s.info.nonce != nil {
		return nil, ErrImprint
	}
	t, err := s.verify(approved)
	if err != nil {
		return nil, err
	}
	if skew := c.now().Sub(t.Time); skew.Abs() > maxSkew {
		return nil, fmt.Errorf("%w: by %s", ErrClock, skew.Round(time.Second))
	}
	if t.Raw, err = s.embed(t.Signer); err != nil {
		return nil, malformed("cannot be encoded anew")
	}
	return t, nil
}

func (c *Client) post(ctx context.Context, url string, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, stampTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentTypeQuery)
	req.Header.Set("Accept", contentTypeResponse)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
}
