// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"kontor/gateway/http1"
)

const (
	// maxAltSvc bounds the header in bytes; ours has 20.
	maxAltSvc = 2 << 10
	// defaultFresh is how long an alternative lasts that does not say (RFC 7838,
	// section 3.1); maxFresh bounds what it may say.
	defaultFresh = 24 * time.Hour
	maxFresh     = 30 * 24 * time.Hour
	// announcedFresh is what we say.
	announcedFresh = 24 * time.Hour
)

var errAltSvc = errors.New("malformed Alt-Svc")

// altService is where, beside here, the same server answers by HTTP/3.
type altService struct {
	port  int           // on the same host; 0: nowhere
	fresh time.Duration // how long that holds
}

// parseAltSvc reads the values of the header Alt-Svc (RFC 7838, section 3). Of
// the alternatives the first counts that is HTTP/3 on the same host: another
// host is not the global configuration's. "clear" revokes them all.
func parseAltSvc(values []string) (altService, error) {
	value := strings.Join(values, ",")
	if len(value) > maxAltSvc {
		return altService{}, errAltSvc
	}
	p := altSvc(value)
	if strings.Trim(value, " \t") == "clear" {
		return altService{}, nil
	}
	var found altService
	for {
		p.skip(", \t") // lists may have empty elements (RFC 9110, section 5.6.1)
		if p == "" {
			return found, nil
		}
		one, err := p.alternative()
		if err != nil {
			return altService{}, err
		}
		if found.port == 0 {
			found = one
		}
		if p.skip(" \t"); p != "" && p[0] != ',' {
			return altService{}, errAltSvc
		}
	}
}

// altSvc is what is left of a header.
type altSvc string

func (p *altSvc) skip(any string) { *p = altSvc(strings.TrimLeft(string(*p), any)) }

func (p *altSvc) take(c byte) bool {
	if *p == "" || (*p)[0] != c {
		return false
	}
	*p = (*p)[1:]
	return true
}

func (p *altSvc) token() (string, error) {
	n := strings.IndexFunc(string(*p), func(r rune) bool { return !http1.TokenCharacter(r) })
	if n < 0 {
		n = len(*p)
	}
	if n == 0 {
		return "", errAltSvc
	}
	t := string((*p)[:n])
	*p = (*p)[n:]
	return t, nil
}

// quoted reads a quoted-string (RFC 9110, section 5.6.4).
func (p *altSvc) quoted() (string, error) {
	if !p.take('"') {
		return "", errAltSvc
	}
	var b strings.Builder
	for *p != "" {
		c := (*p)[0]
		*p = (*p)[1:]
		switch {
		case c == '"':
			return b.String(), nil
		case c == '\\' && *p != "":
			c = (*p)[0]
			*p = (*p)[1:]
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", errAltSvc
		}
		b.WriteByte(c)
	}
	return "", errAltSvc
}

// alternative reads one: its port is 0 if it is not for us.
func (p *altSvc) alternative() (altService, error) {
	protocol, err := p.token()
	if err != nil || !p.take('=') {
		return altService{}, errAltSvc
	}
	authority, err := p.quoted()
	if err != nil {
		return altService{}, err
	}
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 {
		return altService{}, errAltSvc
	}
	port, err := strconv.ParseUint(authority[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return altService{}, errAltSvc
	}
	a := altService{fresh: defaultFresh}
	if protocol == alpn && colon == 0 {
		a.port = int(port)
	}
	for {
		rest := *p
		if p.skip(" \t"); !p.take(';') {
			*p = rest
			return a, nil
		}
		p.skip(" \t")
		name, err := p.token()
		if err != nil || !p.take('=') {
			return altService{}, errAltSvc
		}
		value := ""
		if *p != "" && (*p)[0] == '"' {
			value, err = p.quoted()
		} else {
			value, err = p.token()
		}
		if err != nil {
			return altService{}, err
		}
		if name != "ma" {
			continue // "persist" and what is to come
		}
		seconds, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return altService{}, errAltSvc
		}
		if a.fresh = min(time.Duration(seconds)*time.Second, maxFresh); a.fresh == 0 {
			a.port = 0
		}
	}
}

// HTTPSHandler has the answers of the HTTPS listener say that the same messages
// are taken over QUIC on a port of the same host, unless it is 0, and counts
// them in m, which may be nil.
func HTTPSHandler(next http.Handler, port int, m *Metrics) http.Handler {
	if m == nil {
		m = NewMetrics()
	}
	value := []string{alpn + `=":` + strconv.Itoa(port) + `"; ma=` + strconv.Itoa(int(announcedFresh.Seconds()))}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if port != 0 {
			w.Header()["Alt-Svc"] = value
		}
		m.exchanges.server[HTTPS].Inc()
		next.ServeHTTP(w, r)
	})
}
