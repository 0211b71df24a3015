// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	maxAnswer = 64 << 10
	// leastPoll and mostPoll bound what an authority may ask for between two
	// questions, usualPoll is for those that do not say (RFC 9773, 4.3).
	leastPoll, usualPoll, mostPoll = time.Minute, 6 * time.Hour, 24 * time.Hour
)

// errNoRenewalInfo: the authority does not offer it.
var errNoRenewalInfo = errors.New("the authority offers no renewal information")

// ask learns from the authority when to renew cert. Failing does no harm: there
// is a time to renew without it.
func (r *Renewer) ask(ctx context.Context, cert *x509.Certificate, now time.Time) {
	w, answer := r.window(ctx, cert)
	if answer != nil && ctx.Err() != nil {
		return
	}
	if answer != nil && !errors.Is(answer, errNoRenewalInfo) {
		r.cfg.Log.Info("no renewal information", zap.String("directory", r.cfg.Credentials.Directory), zap.Error(answer))
	}
	err := r.change(func(s *state) {
		s.AskAt = now.Add(min(max(w.poll, leastPoll), mostPoll))
		switch {
		case errors.Is(answer, errNoRenewalInfo):
			s.WindowStart, s.WindowEnd, s.RenewAt = time.Time{}, time.Time{}, time.Time{}
		case answer == nil && !(w.start.Equal(s.WindowStart) && w.end.Equal(s.WindowEnd)):
			s.WindowStart, s.WindowEnd = w.start, w.end
			s.RenewAt = w.start.Add(time.Duration(rand.Int64N(int64(w.end.Sub(w.start)))))
		}
	})
	if err != nil {
		r.cfg.Log.Warn("renewal information not kept", zap.Error(err))
	}
}

// window is when an authority wants a certificate renewed, and when to ask again.
type window struct {
	start, end time.Time
	poll       time.Duration
}

// window asks the authority (RFC 9773, 4). Poll is set even with an error.
func (r *Renewer) window(ctx context.Context, cert *x509.Certificate) (window, error) {
	w := window{poll: usualPoll}
	if len(cert.AuthorityKeyId) == 0 {
		return w, errNoRenewalInfo
	}
	var directory struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	if _, err := r.get(ctx, r.cfg.Credentials.Directory, &directory); err != nil {
		return w, err
	}
	if directory.RenewalInfo == "" {
		w.poll = mostPoll
		return w, errNoRenewalInfo
	}
	if u, err := url.Parse(directory.RenewalInfo); err != nil || u.Scheme != "https" || u.Host == "" {
		return w, fmt.Errorf("renewalInfo %.200q is not an https URL", directory.RenewalInfo)
	}
	var answer struct {
		Window struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
	}
	header, err := r.get(ctx, strings.TrimSuffix(directory.RenewalInfo, "/")+"/"+certID(cert), &answer)
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 {
		w.poll = time.Duration(min(seconds, int(mostPoll/time.Second))) * time.Second
	}
	if err != nil {
		return w, err
	}
	w.start, w.end = answer.Window.Start, answer.Window.End
	if w.start.IsZero() || !w.start.Before(w.end) {
		return w, errors.New("the suggested window has no duration")
	}
	return w, nil
}

// certID identifies a certificate (RFC 9773, 4.1).
func certID(cert *x509.Certificate) string {
	serial := cert.SerialNumber.Bytes()
	if len(serial) > 0 && serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...) // as in its DER form
	}
	return base64.RawURLEncoding.EncodeToString(cert.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

func (r *Renewer) get(ctx context.Context, address string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.cfg.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Header, fmt.Errorf("%s answers %s", address, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return resp.Header, err
	}
	return resp.Header, json.Unmarshal(b, into)
}
