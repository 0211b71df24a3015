// SPDX-License-Identifier: Apache-2.0

// Package id names the parties of an ecosystem: members, their subsystems,
// the services they offer, the security servers they run and the groups they
// belong to.
//
// Every identifier is a comparable value: == is X-Road's equality, field by
// field, case-sensitive, without Unicode normalisation or trimming. The zero
// value means "absent". Identifiers are built by a constructor or a Parse
// function only, so a value that is not zero is well formed.
//
// Two string forms exist (X-Road: Message Protocol for REST, section 4.2, and
// the identifiers schema):
//
//   - String, MarshalText: the REST form, each part percent-encoded, joined by
//     "/", as in "DEV/GOV/1234/portal". Parsing it gives the same value back.
//   - LogString: "SUBSYSTEM:DEV/GOV/1234/portal", unescaped, for logs and
//     fault texts that people compare with those of other servers.
package id

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Errors that all constructors and parsers of this package wrap.
var (
	// ErrBlank tells that a mandatory part is empty or white space.
	ErrBlank = errors.New("blank identifier part")
	// ErrSyntax tells that a string is not the REST form of the identifier.
	ErrSyntax = errors.New("malformed identifier")
)

// maxLength bounds the REST form of an identifier, in bytes. A part is at most
// 255 characters in X-Road's databases; five parts of them, all escaped, fit.
const maxLength = 16 << 10

// Member names an organisation: instance, member class, member code.
type Member struct {
	instance, class, code string
}

// NewMember returns the member with the given parts, none of which may be blank.
func NewMember(instance, class, code string) (Member, error) {
	if err := mandatory("instance", instance, "member class", class, "member code", code); err != nil {
		return Member{}, err
	}
	return Member{instance, class, code}, nil
}

// ParseMember reads the REST form "instance/class/code".
func ParseMember(s string) (Member, error) {
	p, _, err := split(s, "member", 3, 3)
	if err != nil {
		return Member{}, err
	}
	return NewMember(p[0], p[1], p[2])
}

// Instance returns the X-Road instance, such as "EE".
func (m Member) Instance() string { return m.instance }

// Class returns the member class, such as "GOV".
func (m Member) Class() string { return m.class }

// Code returns the member code, unique within its class.
func (m Member) Code() string { return m.code }

// IsZero reports whether m is absent.
func (m Member) IsZero() bool { return m == Member{} }

// Client returns the member itself as a client, without a subsystem.
func (m Member) Client() Client { return Client{member: m} }

// String returns the REST form; "" if m is absent.
func (m Member) String() string { return join(m.instance, m.class, m.code) }

// LogString returns "MEMBER:instance/class/code".
func (m Member) LogString() string {
	return "MEMBER:" + m.instance + "/" + m.class + "/" + m.code
}

// MarshalText returns the REST form.
func (m Member) MarshalText() ([]byte, error) { return text(m.IsZero(), m.String()) }

// UnmarshalText reads the REST form; empty text is the zero value.
func (m *Member) UnmarshalText(b []byte) error { return untext(m, b, ParseMember) }

// Client names whoever sends requests or offers services: a subsystem of a
// member or, rarely, the member itself.
type Client struct {
	member    Member
	subsystem string
}

// NewClient returns the subsystem of m with the given code, which must not be
// blank. For the member itself use [Member.Client].
func NewClient(m Member, subsystem string) (Client, error) {
	if m.IsZero() {
		return Client{}, fmt.Errorf("member: %w", ErrBlank)
	}
	if err := mandatory("subsystem code", subsystem); err != nil {
		return Client{}, err
	}
	return Client{m, subsystem}, nil
}

// ParseClient reads the REST form "instance/class/code[/subsystem]".
func ParseClient(s string) (Client, error) {
	p, n, err := split(s, "client", 3, 4)
	if err != nil {
		return Client{}, err
	}
	m, err := NewMember(p[0], p[1], p[2])
	if err != nil || n == 3 {
		return m.Client(), err
	}
	return NewClient(m, p[3])
}

// Member returns the member that c is, or that owns c.
func (c Client) Member() Member { return c.member }

// Instance returns the X-Road instance of the member.
func (c Client) Instance() string { return c.member.instance }

// Subsystem returns the subsystem code, or "" if c is a member.
func (c Client) Subsystem() string { return c.subsystem }

// IsMember reports whether c is a member without a subsystem.
func (c Client) IsMember() bool { return c.subsystem == "" && !c.IsZero() }

// IsZero reports whether c is absent.
func (c Client) IsZero() bool { return c == Client{} }

func (c Client) String() string {
	if c.subsystem == "" {
		return c.member.String()
	}
	return join(c.member.instance, c.member.class, c.member.code, c.subsystem)
}

// LogString returns "SUBSYSTEM:…" or "MEMBER:…".
func (c Client) LogString() string {
	if c.subsystem == "" {
		return c.member.LogString()
	}
	return "SUBSYSTEM:" + c.member.instance + "/" + c.member.class + "/" + c.member.code + "/" + c.subsystem
}

// MarshalText returns the REST form.
func (c Client) MarshalText() ([]byte, error) { return text(c.IsZero(), c.String()) }

// UnmarshalText reads the REST form; empty text is the zero value.
func (c *Client) UnmarshalText(b []byte) error { return untext(c, b, ParseClient) }

// Service names a service of a client. REST services have no version.
type Service struct {
	owner     Client
	code      string
	version   string
	versioned bool
}

// NewService returns the service of owner with the given code and no version.
func NewService(owner Client, code string) (Service, error) {
	if owner.IsZero() {
		return Service{}, fmt.Errorf("service owner: %w", ErrBlank)
	}
	if err := mandatory("service code", code); err != nil {
		return Service{}, err
	}
	return Service{owner: owner, code: code}, nil
}

// NewServiceVersion returns a service with a version. An empty version is not
// the same as none.
func NewServiceVersion(owner Client, code, version string) (Service, error) {
	s, err := NewService(owner, code)
	if err != nil {
		return Service{}, err
	}
	s.version, s.versioned = version, true
	return s, nil
}

// ParseService reads the REST form "instance/class/code/subsystem/service".
// REST offers no place for a version or for a service of a member.
func ParseService(s string) (Service, error) {
	p, _, err := split(s, "service", 5, 5)
	if err != nil {
		return Service{}, err
	}
	m, err := NewMember(p[0], p[1], p[2])
	if err != nil {
		return Service{}, err
	}
	owner, err := NewClient(m, p[3])
	if err != nil {
		return Service{}, err
	}
	return NewService(owner, p[4])
}

// Owner returns the client that offers the service.
func (s Service) Owner() Client { return s.owner }

// Code returns the service code.
func (s Service) Code() string { return s.code }

// Version returns the version and whether there is one.
func (s Service) Version() (version string, ok bool) { return s.version, s.versioned }

// IsZero reports whether s is absent.
func (s Service) IsZero() bool { return s == Service{} }

// String returns the REST form; a version, for which REST has none, is
// appended as one more part.
func (s Service) String() string {
	if s.IsZero() {
		return ""
	}
	m := &s.owner.member
	parts := [6]string{m.instance, m.class, m.code}
	n := 3
	for _, p := range [...]struct {
		part    string
		present bool
	}{{s.owner.subsystem, s.owner.subsystem != ""}, {s.code, true}, {s.version, s.versioned}} {
		if p.present {
			parts[n] = p.part
			n++
		}
	}
	return join(parts[:n]...)
}

// LogString returns "SERVICE:…" with the parts that are present.
func (s Service) LogString() string {
	_, rest, _ := strings.Cut(s.owner.LogString(), ":")
	out := "SERVICE:" + rest + "/" + s.code
	if s.versioned {
		out += "/" + s.version
	}
	return out
}

// MarshalText returns the REST form.
func (s Service) MarshalText() ([]byte, error) { return text(s.IsZero(), s.String()) }

// UnmarshalText reads the REST form; empty text is the zero value.
func (s *Service) UnmarshalText(b []byte) error { return untext(s, b, ParseService) }

// SecurityServer names a security server by its owner and server code.
type SecurityServer struct {
	owner Member
	code  string
}

// NewSecurityServer returns the server of owner with the given code.
func NewSecurityServer(owner Member, code string) (SecurityServer, error) {
	if owner.IsZero() {
		return SecurityServer{}, fmt.Errorf("server owner: %w", ErrBlank)
	}
	if err := mandatory("server code", code); err != nil {
		return SecurityServer{}, err
	}
	return SecurityServer{owner, code}, nil
}

// ParseSecurityServer reads the REST form "instance/class/code/server".
func ParseSecurityServer(s string) (SecurityServer, error) {
	p, _, err := split(s, "security server", 4, 4)
	if err != nil {
		return SecurityServer{}, err
	}
	m, err := NewMember(p[0], p[1], p[2])
	if err != nil {
		return SecurityServer{}, err
	}
	return NewSecurityServer(m, p[3])
}

// Owner returns the member that runs the server.
func (s SecurityServer) Owner() Member { return s.owner }

// Code returns the server code, unique among the owner's servers.
func (s SecurityServer) Code() string { return s.code }

// IsZero reports whether s is absent.
func (s SecurityServer) IsZero() bool { return s == SecurityServer{} }

func (s SecurityServer) String() string {
	return join(s.owner.instance, s.owner.class, s.owner.code, s.code)
}

// LogString returns "SERVER:instance/class/code/server".
func (s SecurityServer) LogString() string {
	return "SERVER:" + s.owner.instance + "/" + s.owner.class + "/" + s.owner.code + "/" + s.code
}

// MarshalText returns the REST form.
func (s SecurityServer) MarshalText() ([]byte, error) { return text(s.IsZero(), s.String()) }

// UnmarshalText reads the REST form; empty text is the zero value.
func (s *SecurityServer) UnmarshalText(b []byte) error { return untext(s, b, ParseSecurityServer) }

// GlobalGroup names a group of clients that the registry keeps for a whole
// instance.
type GlobalGroup struct {
	instance, code string
}

// NewGlobalGroup returns the group of an instance with the given code.
func NewGlobalGroup(instance, code string) (GlobalGroup, error) {
	if err := mandatory("instance", instance, "group code", code); err != nil {
		return GlobalGroup{}, err
	}
	return GlobalGroup{instance, code}, nil
}

// ParseGlobalGroup reads "instance/group".
func ParseGlobalGroup(s string) (GlobalGroup, error) {
	p, _, err := split(s, "global group", 2, 2)
	if err != nil {
		return GlobalGroup{}, err
	}
	return NewGlobalGroup(p[0], p[1])
}

// Instance returns the instance that keeps the group.
func (g GlobalGroup) Instance() string { return g.instance }

// Code returns the group code.
func (g GlobalGroup) Code() string { return g.code }

// IsZero reports whether g is absent.
func (g GlobalGroup) IsZero() bool { return g == GlobalGroup{} }

func (g GlobalGroup) String() string { return join(g.instance, g.code) }

// LogString returns "GLOBALGROUP:instance/group".
func (g GlobalGroup) LogString() string { return "GLOBALGROUP:" + g.instance + "/" + g.code }

// MarshalText returns the REST form.
func (g GlobalGroup) MarshalText() ([]byte, error) { return text(g.IsZero(), g.String()) }

// UnmarshalText reads "instance/group"; empty text is the zero value.
func (g *GlobalGroup) UnmarshalText(b []byte) error { return untext(g, b, ParseGlobalGroup) }

// RepresentedParty names the party on whose behalf a client sends a request;
// its class may be absent.
type RepresentedParty struct {
	class, code string
}

// NewRepresentedParty returns a party; class may be "", code must not be blank.
func NewRepresentedParty(class, code string) (RepresentedParty, error) {
	if err := mandatory("party code", code); err != nil {
		return RepresentedParty{}, err
	}
	return RepresentedParty{class, code}, nil
}

// ParseRepresentedParty reads "[class/]code".
func ParseRepresentedParty(s string) (RepresentedParty, error) {
	p, n, err := split(s, "represented party", 1, 2)
	if err != nil {
		return RepresentedParty{}, err
	}
	if n == 1 {
		return NewRepresentedParty("", p[0])
	}
	return NewRepresentedParty(p[0], p[1])
}

// Class returns the class of the party, or "".
func (r RepresentedParty) Class() string { return r.class }

// Code returns the code of the party.
func (r RepresentedParty) Code() string { return r.code }

// IsZero reports whether r is absent.
func (r RepresentedParty) IsZero() bool { return r == RepresentedParty{} }

func (r RepresentedParty) String() string {
	if r.class == "" {
		return join(r.code)
	}
	return join(r.class, r.code)
}

// CheckCharacters reports whether part may be given to something new. X-Road
// forbids control characters, %, :, ;, /, \, zero width space and byte order
// mark in identifiers; messages that use them are still carried, so only
// administration calls this.
func CheckCharacters(part string) error {
	if strings.TrimSpace(part) == "" {
		return ErrBlank
	}
	if !utf8.ValidString(part) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	if n := utf8.RuneCountInString(part); n > 255 {
		return fmt.Errorf("%w: %d characters, at most 255 are allowed", ErrSyntax, n)
	}
	for _, r := range part {
		if r <= 0x1F || r >= 0x7F && r <= 0x9F || strings.ContainsRune("%:;/\\\u200B\uFEFF", r) {
			return fmt.Errorf("%w: character %q is not allowed in identifiers", ErrSyntax, r)
		}
	}
	return nil
}

// mandatory takes pairs of name and value and refuses the first blank value.
func mandatory(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		switch v := pairs[i+1]; {
		case v != "" && ' ' < v[0] && v[0] < utf8.RuneSelf: // not blank
		case strings.TrimSpace(v) == "":
			return fmt.Errorf("%s: %w", pairs[i], ErrBlank)
		}
		if !utf8.ValidString(pairs[i+1]) {
			return fmt.Errorf("%s: %w: not UTF-8", pairs[i], ErrSyntax)
		}
	}
	return nil
}

// split cuts the REST form at raw slashes and decodes each part, so that an
// encoded slash belongs to its part.
func split(s, what string, min, max int) (parts [maxParts]string, n int, err error) {
	if len(s) > maxLength {
		return parts, 0, fmt.Errorf("%w: %s identifier longer than %d bytes", ErrSyntax, what, maxLength)
	}
	for rest, more := s, true; more; n++ {
		if n == max {
			n = max + 1
			break
		}
		parts[n], rest, more = strings.Cut(rest, "/")
	}
	if n < min || n > max {
		return parts, 0, fmt.Errorf("%w: %q is not a %s identifier: %s expected", ErrSyntax, s, what, partCount(min, max))
	}
	for i, p := range parts[:n] {
		if parts[i], err = unescape(p); err != nil {
			return parts, 0, fmt.Errorf("%w: %s identifier %q: %v", ErrSyntax, what, s, err)
		}
	}
	return parts, n, nil
}

// maxParts is how many parts an identifier has at most.
const maxParts = 5

func partCount(min, max int) string {
	if min == max {
		return fmt.Sprintf("%d parts", min)
	}
	return fmt.Sprintf("%d to %d parts", min, max)
}

const upperHex = "0123456789ABCDEF"

// literal tells which bytes stand for themselves in the REST form.
var literal = func() (t [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@" {
		t[c] = true
	}
	return t
}()

func unescape(s string) (string, error) {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			plain = false
		} else if !literal[s[i]] {
			return "", fmt.Errorf("byte %q must be percent-encoded", s[i])
		}
	}
	if plain {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
			return "", errors.New("bad percent-encoding")
		}
		b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
		i += 2
	}
	return string(b), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// join writes the REST form; that of an absent identifier, whose first part is
// empty, is empty.
func join(parts ...string) string {
	if parts[0] == "" {
		return ""
	}
	n, escaped := len(parts)-1, false
	for _, p := range parts {
		n += len(p)
		for j := 0; j < len(p); j++ {
			if !literal[p[j]] {
				n += 2
				escaped = true
			}
		}
	}
	var b strings.Builder
	b.Grow(n)
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('/')
		}
		if !escaped {
			b.WriteString(p)
			continue
		}
		for j := 0; j < len(p); j++ {
			if c := p[j]; literal[c] {
				b.WriteByte(c)
			} else {
				b.WriteByte('%')
				b.WriteByte(upperHex[c>>4])
				b.WriteByte(upperHex[c&15])
			}
		}
	}
	return b.String()
}

func text(zero bool, s string) ([]byte, error) {
	if zero {
		return nil, nil
	}
	return []byte(s), nil
}

func untext[T any](dst *T, b []byte, parse func(string) (T, error)) error {
	var v T
	if len(b) > 0 {
		var err error
		if v, err = parse(string(b)); err != nil {
			return err
		}
	}
	*dst = v
	return nil
}
