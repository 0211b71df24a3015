// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"errors"
	"strings"
)

// maxPattern bounds a path pattern, in bytes; it also bounds the work of a match.
const maxPattern = 1024

var errPattern = errors.New("malformed path pattern")

// glob is a compiled path pattern. The zero value matches the empty path.
type glob struct {
	prefix string  // literal up to the first wildcard
	suffix string  // literal after the last wildcard
	middle []token // from the first wildcard to the last; empty: prefix is all
}

// token is one step of a pattern: a literal byte or a wildcard.
type token struct {
	kind kind
	c    byte
}

type kind byte

const (
	literal kind = iota
	run          // any run without "/"
	many         // any run
)

// compileGlob reads the pattern described at [Conf.Authorise].
func compileGlob(pattern string) (*glob, error) {
	if len(pattern) > maxPattern {
		return nil, errPattern
	}
	var tokens []token
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			k := run
			for i+1 < len(pattern) && pattern[i+1] == '*' {
				k = many
				i++
			}
			tokens = append(tokens, token{kind: k})
		case '\\':
			i++
			if i == len(pattern) || pattern[i] != '*' && pattern[i] != '\\' {
				return nil, errPattern
			}
			tokens = append(tokens, token{c: pattern[i]})
		default:
			tokens = append(tokens, token{c: c})
		}
	}
	first, last := len(tokens), -1
	for i, t := range tokens {
		if t.kind != literal {
			first, last = min(first, i), i
		}
	}
	g := &glob{prefix: text(tokens[:first])}
	if last >= 0 {
		g.middle, g.suffix = tokens[first:last+1], text(tokens[last+1:])
	}
	return g, nil
}

func text(tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteByte(t.c)
	}
	return b.String()
}

// match tells whether the whole of s fits. Its time is at most the product of
// the lengths of pattern and s.
func (g *glob) match(s string) bool {
	if len(g.middle) == 0 {
		return s == g.prefix
	}
	if len(s) < len(g.prefix)+len(g.suffix) || !strings.HasPrefix(s, g.prefix) || !strings.HasSuffix(s, g.suffix) {
		return false
	}
	s = s[len(g.prefix) : len(s)-len(g.suffix)]
	if len(g.middle) == 1 {
		return g.middle[0].kind == many || strings.IndexByte(s, '/') < 0
	}
	return simulate(g.middle, s)
}

// simulate runs the pattern as an automaton that holds all its possible states
// at once, so there is nothing to back out of. State i means that the tokens
// before i are matched.
func simulate(tokens []token, s string) bool {
	var space [2][64]bool
	now, next := space[0][:], space[1][:]
	if len(tokens) >= len(now) {
		now, next = make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	}
	now, next = now[:len(tokens)+1], next[:len(tokens)+1]
	now[0] = true
	for p := 0; ; p++ {
		alive := false
		for i, t := range tokens {
			if !now[i] {
				continue
			}
			if t.kind != literal {
				now[i+1] = true // an empty run
			}
			if p == len(s) {
				continue
			}
			switch {
			case t.kind == many, t.kind == run && s[p] != '/':
				next[i], alive = true, true
			case t.kind == literal && t.c == s[p]:
				next[i+1], alive = true, true
			}
		}
		if p == len(s) {
			return now[len(tokens)]
		}
		if !alive {
			return false
		}
		now, next = next, now
		clear(next)
	}
}
