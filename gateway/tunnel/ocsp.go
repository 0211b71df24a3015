// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strconv"
	"strings"

	"kontor/pki"
	"kontor/pki/ocsp"
)

const (
	// maxOCSPResponse bounds one response; real ones are 0.5–4 KB.
	maxOCSPResponse = 64 << 10
	// maxOCSPAnswer bounds the whole answer of port 5577.
	maxOCSPAnswer = 256 << 10
)

// fetchOCSP asks the peer at an address for the OCSP responses of its own
// certificates: one per certificate, in the order asked (X-Road Message
// Transport Protocol, section 3). They are not verified. Requests that need the
// same responses at once share one question.
func (c *Client) fetchOCSP(ctx context.Context, address string, certs []*x509.Certificate) ([][]byte, error) {
	query := ocspQuery(certs)
	result := c.questions.DoChan(address+" "+query, func() (any, error) {
		// It outlives the request that asked first, but not the client.
		ctx, cancel := c.patience()
		defer cancel()
		return c.askOCSP(ctx, address, query, len(certs))
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([][]byte), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ocsp.ErrUnavailable, ctx.Err())
	}
}

func (c *Client) askOCSP(ctx context.Context, address, query string, want int) ([][]byte, error) {
	host := net.JoinHostPort(address, strconv.Itoa(c.ocspPort))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/?"+query, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ocsp.ErrUnavailable, err)
	}
	req.Header.Set("Accept", "multipart/related")
	req.Header["User-Agent"] = nil
	resp, err := c.plain.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ocsp.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("%w: port %d answered with HTTP status %d", ocsp.ErrUnavailable, c.ocspPort, resp.StatusCode)
	}
	return readOCSP(resp.Header.Get("Content-Type"), resp.Body, want)
}

// ocspQuery asks in both ways: servers before 7.8 and 7.8 itself read cert, later
// ones may read cert_hash.
func ocspQuery(certs []*x509.Certificate) string {
	var q []string
	for _, c := range certs {
		sum := sha1.Sum(c.Raw)
		q = append(q, "cert="+hex.EncodeToString(sum[:]))
	}
	for _, c := range certs {
		q = append(q, "cert_hash="+pki.HashOf(c).Hex())
	}
	return strings.Join(q, "&")
}

// readOCSP reads an answer of exactly want parts.
func readOCSP(contentType string, body io.Reader, want int) ([][]byte, error) {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "multipart/related" || params["boundary"] == "" {
		return nil, fmt.Errorf("%w: content type %q", ocsp.ErrMalformed, contentType)
	}
	parts := multipart.NewReader(io.LimitReader(body, maxOCSPAnswer), params["boundary"])
	var responses [][]byte
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ocsp.ErrMalformed, err)
		}
		if kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil || kind != ocspResponseType {
			return nil, fmt.Errorf("%w: a part of type %q", ocsp.ErrMalformed, p.Header.Get("Content-Type"))
		}
		if len(responses) == want {
			return nil, fmt.Errorf("%w: more than %d parts", ocsp.ErrMalformed, want)
		}
		der, err := io.ReadAll(io.LimitReader(p, maxOCSPResponse+1))
		if err == nil && len(der) > maxOCSPResponse {
			err = errors.New("a part is too large")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ocsp.ErrMalformed, err)
		}
		responses = append(responses, der)
	}
	if len(responses) != want {
		return nil, fmt.Errorf("%w: %d parts instead of %d", ocsp.ErrMalformed, len(responses), want)
	}
	return responses, nil
}
