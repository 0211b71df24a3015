// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
)

// byCode and bySqueezed index table; parts that occur in codes but are none
// themselves are in the second only. They are never written to.
var (
	byCode     = indexTable()
	bySqueezed = indexWords()
)

func indexTable() map[string]Entry {
	m := make(map[string]Entry, len(table))
	for _, e := range table {
		m[string(e.Code)] = e
	}
	return m
}

func indexWords() map[string]string {
	m := map[string]string{}
	for _, w := range []string{"client", "server", "clientproxy", "serverproxy", "opmonitor", "signer", "mlog"} {
		m[w] = w
	}
	for _, e := range table {
		for _, w := range strings.Split(string(e.Code), ".") {
			m[squeeze(w)] = w
		}
	}
	for w, old := range older {
		if _, ok := m[squeeze(old)]; !ok {
			m[squeeze(old)] = w
		}
	}
	return m
}

// Normalise returns a code in the lower snake case of X-Road 7.8. Older servers
// and the protocol documents write "Server.ServerProxy.AccessDenied".
func Normalise(code string) string {
	words := strings.Split(code, ".")
	for i, w := range words {
		if known, ok := bySqueezed[squeeze(w)]; ok {
			words[i] = known
		} else {
			words[i] = snake(w)
		}
	}
	return strings.Join(words, ".")
}

// Equal reports whether two codes, in either spelling, mean the same.
func Equal(a, b string) bool {
	return a == b || Normalise(a) == Normalise(b)
}

// Is reports whether err holds a fault whose code ends with code, whatever its
// origin and infixes.
func Is(err error, code Code) bool {
	e := find(err)
	if e == nil {
		return false
	}
	have, want := Normalise(e.code), Normalise(string(code))
	return have == want || strings.HasSuffix(have, "."+want)
}

func squeeze(w string) string {
	return strings.ToLower(strings.ReplaceAll(w, "_", ""))
}

// snake cuts CamelCase before each upper-case letter that follows or precedes a
// lower-case one.
func snake(w string) string {
	var b strings.Builder
	for i := 0; i < len(w); i++ {
		c := w[i]
		if isUpper(c) {
			if i > 0 && w[i-1] != '_' && (!isUpper(w[i-1]) || i+1 < len(w) && isLower(w[i+1])) {
				b.WriteByte('_')
			}
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

// OfIO returns the code that X-Road gives to errors of the network and of
// transfers: unknown_host, network_error (no connection), or io_error.
func OfIO(err error) Code {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return UnknownHost
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return IOError
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED) {
		return NetworkError
	}
	return IOError
}
