// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"kontor/registry/id"
)

const (
	maxText        = 255      // characters of names and descriptions
	maxCertificate = 16 << 10 // bytes of a certificate in DER
)

func hashOf(der []byte) Hash { return sha256.Sum256(der) }

// checkCode refuses what may not become part of an identifier.
func checkCode(c Change, what, code string) error {
	if err := id.CheckCharacters(code); err != nil {
		return refuse(c, ErrInvalid, fmt.Sprintf("%s %q: %v", what, code, err), "")
	}
	if strings.TrimSpace(code) != code {
		return refuse(c, ErrInvalid, fmt.Sprintf("%s %q begins or ends with white space", what, code), "")
	}
	return nil
}

// checkText refuses what cannot be shown or written as XML.
func checkText(c Change, what, text string, needed bool) error {
	switch {
	case needed && strings.TrimSpace(text) == "":
		return refuse(c, ErrInvalid, what+" is missing", "give one")
	case !utf8.ValidString(text):
		return refuse(c, ErrInvalid, what+" is not UTF-8", "")
	case utf8.RuneCountInString(text) > maxText:
		return refuse(c, ErrInvalid, fmt.Sprintf("%s is longer than %d characters", what, maxText), "")
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == '\uFFFE' || r == '\uFFFF' }):
		return refuse(c, ErrInvalid, what+" contains control characters", "")
	}
	return nil
}

func checkCost(c Change, cost string) error {
	if !slices.Contains([]string{"", "FREE", "PAID", "UNDEFINED"}, cost) {
		return refuse(c, ErrInvalid, fmt.Sprintf("cost %q is unknown", cost), "use FREE, PAID or UNDEFINED")
	}
	return nil
}

// CheckAddress tells what is wrong with the address of a security server.
func CheckAddress(address string) error {
	if why := checkAddress(address, false); why != "" {
		return errors.New(why)
	}
	return nil
}

// checkAddress says what is wrong with a host name or IP address, or "".
func checkAddress(address string, portAllowed bool) string {
	host, port := splitAddress(address)
	if port != "" {
		if !portAllowed {
			return "it has a port; security servers always use their own ports"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("port %q is not a number from 1 to 65535", port)
		}
	}
	if host == "" {
		return "it is missing"
	}
	if net.ParseIP(host) != nil {
		return ""
	}
	if len(host) > 253 {
		return "it is longer than 253 characters"
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
			}) {
			return fmt.Sprintf("%q is not a host name or IP address", address)
		}
	}
	return ""
}

// splitAddress takes host[:port] apart; the port is "" if there is none. A
// bare IPv6 address is a host.
func splitAddress(address string) (host, port string) {
	if net.ParseIP(address) != nil {
		return address, ""
	}
	if host, port, err := net.SplitHostPort(address); err == nil {
		return host, port
	}
	return address, ""
}

// checkURL says what is wrong with an absolute URL, or "".
func checkURL(s string, schemes ...string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Fragment != "" || u.User != nil || len(s) > 2048 {
		return fmt.Sprintf("%q is not a plain absolute URL", s)
	}
	if !slices.Contains(schemes, u.Scheme) {
		return fmt.Sprintf("%q does not begin with %s://", s, strings.Join(schemes, ":// or "))
	}
	return ""
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) == 0 {
		return nil, errors.New("the certificate is missing")
	}
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("the certificate is larger than %d bytes", maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("not a certificate: %w", err)
	}
	return cert, nil
}
