// SPDX-License-Identifier: Apache-2.0

package description

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// FetchTimeout bounds a whole download.
const FetchTimeout = 30 * time.Second

// ErrFetch is what a failed download ends with.
var ErrFetch = errors.New("the document cannot be read")

// Fetch downloads a document, of at most MaxSize bytes, within FetchTimeout.
// Its URL is http or https, and may be one of an internal network: that of the
// operator, who gave it. Redirects are not followed, no proxy is used, and the
// answer must have status 200.
//
// Errors: ErrFetch.
func Fetch(ctx context.Context, url string, trust *tls.Config) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, FetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFetch, err)
	}
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return nil, fmt.Errorf("%w: %q is not an http or https URL", ErrFetch, url)
	}
	req.Header.Set("Accept", "application/yaml, application/json, text/xml, */*;q=0.1")
	req.Header.Set("User-Agent", "kontor")
	t := &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		TLSClientConfig:        trust,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFetch, url, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return nil, fmt.Errorf("%w: %s answers with a redirect to %.500q, which is not followed; give the address it leads to",
			ErrFetch, url, resp.Header.Get("Location"))
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: %s answers with status %d", ErrFetch, url, resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrFetch, url, err)
	case len(b) > MaxSize:
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrFetch, url, MaxSize)
	}
	return b, nil
}
