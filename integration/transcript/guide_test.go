// SPDX-License-Identifier: Apache-2.0

//go:build linux

package transcript_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// step is a fenced block of the guide that stands for a file, or one command of
// a block.
type step struct {
	line    int
	file    string // the step writes this file
	text    string // of the file or the command
	shown   string // what the guide shows of its output
	checked bool   // the block shows output, so that of each of its commands counts
	status  int
	wait    bool // repeated until it does what is shown
}

// steps reads the guide: blocks "yaml FILE" and "console". A console block has
// commands after "$ ", continued after "> ", and what they print. Its words
// "wait" and "exit=1" say that commands are repeated until they do what is
// shown, and with which status they end.
func steps(t *testing.T, file string) (all []step) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var info []string // of the block that the line is in
	first := 0        // step of the block
	for i, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "```"); ok {
			if info != nil {
				info = nil
				for j := range all[first:] {
					for _, s := range all[first:] {
						all[first+j].checked = all[first+j].checked || s.shown != ""
					}
				}
				continue
			}
			info, first = append([]string{}, strings.Fields(rest)...), len(all)
			if len(info) == 0 {
				info = []string{"text"}
			}
			if info[0] == "yaml" && len(info) > 1 {
				all = append(all, step{line: i + 1, file: info[1]})
			}
			continue
		}
		switch {
		case info == nil:
		case info[0] == "yaml" && len(info) > 1:
			all[len(all)-1].text += line + "\n"
		case info[0] != "console":
		case strings.HasPrefix(line, "$ "):
			s := step{line: i + 1, text: line[2:]}
			for _, word := range info[1:] {
				status, isStatus := strings.CutPrefix(word, "exit=")
				if s.wait = s.wait || word == "wait"; isStatus {
					if s.status, err = strconv.Atoi(status); err != nil {
						t.Fatalf("%s:%d: %s", file, i+1, word)
					}
				} else if word != "wait" {
					t.Fatalf("%s:%d: unknown word %q", file, i+1, word)
				}
			}
			all = append(all, s)
		case len(all) == first:
			t.Fatalf("%s:%d: the block begins without a command", file, i+1)
		case strings.HasPrefix(line, "> ") || line == ">":
			all[len(all)-1].text += "\n" + strings.TrimPrefix(line[1:], " ")
		default:
			all[len(all)-1].shown += line + "\n"
		}
	}
	return all
}

// names are what stands for something that differs from run to run: <auth>.
type names map[string]string

var nameForm = regexp.MustCompile(`<([a-z][a-z0-9-]*)>`)

// fill replaces the names in a command.
func (n names) fill(text string) (filled string, err error) {
	filled = nameForm.ReplaceAllStringFunc(text, func(s string) string {
		v, ok := n[s[1:len(s)-1]]
		if !ok {
			err = fmt.Errorf("nothing before has shown %s", s)
		}
		return v
	})
	return filled, err
}

var gaps = regexp.MustCompile(`…|[ \t]+|<[a-z][a-z0-9-]*>`)

// match compares output with what is shown of it, and learns names from it. "…"
// stands for anything in its line, or for any lines if it has one of its own;
// how many spaces there are does not matter.
func (n names) match(shown, output string) error {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	var learnt []string
	for line := range strings.Lines(shown) {
		line = strings.TrimRight(line, " \n")
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		at := 0
		for _, m := range gaps.FindAllStringIndex(line, -1) {
			pattern.WriteString(regexp.QuoteMeta(line[at:m[0]]))
			at = m[1]
			switch word := line[m[0]:m[1]]; {
			case word == "…":
				pattern.WriteString(`.*?`)
			case word[0] != '<':
				pattern.WriteString(`[ \t]+`)
			case n[word[1:len(word)-1]] != "":
				pattern.WriteString(regexp.QuoteMeta(n[word[1:len(word)-1]]))
			default:
				learnt = append(learnt, word[1:len(word)-1])
				pattern.WriteString(`(\S+?)`)
			}
		}
		pattern.WriteString(regexp.QuoteMeta(line[at:]) + `[ \t]*\n`)
	}
	pattern.WriteString(`\z`)
	found := regexp.MustCompile(pattern.String()).FindStringSubmatch(output)
	if found == nil {
		return fmt.Errorf("this is not what is shown:\n%s", shown)
	}
	new := names{}
	for i, name := range learnt {
		if v, ok := new[name]; ok && v != found[i+1] {
			return fmt.Errorf("<%s> would be %s and %s", name, v, found[i+1])
		}
		new[name] = found[i+1]
	}
	maps.Copy(n, new)
	return nil
}

// TestMatch: what is shown and what is printed differ in gaps and names alone.
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		shown, output string
		ok            bool
	}{
		{"<n> of <n> are valid\n", "3 of 3 are valid\n", true},
		{"<n> of <n> are valid\n", "2 of 3 are valid\n", false},
		{"<known> done\n", "this done\n", true},
		{"<known> done\n", "that done\n", false},
		{"a …\n…\nz\n", "a b\nc\nz\n", true},
		{"a …\nz\n", "a b\nc\nz\n", false},
		{"done\n", "done\nmore\n", false},
	} {
		n := names{"known": "this"}
		if err := n.match(c.shown, c.output); (err == nil) != c.ok || err != nil && len(n) != 1 {
			t.Errorf("%q shown, %q printed: %v, %v", c.shown, c.output, err, n)
		}
	}
}
