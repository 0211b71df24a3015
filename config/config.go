// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration file of a role: YAML, decoded
// strictly, overridden by environment variables, validated as a whole before
// anything starts.
//
// Every key can be overridden by KONTOR_ and its path in upper case, joined by
// underscores: KONTOR_LISTEN_PEER for listen.peer. A key that the role does
// not know, or a value that cannot be, is refused with its line and what to do.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Key  string // path such as "listen.peer"
	Line int    // in the file; 0 if the value does not come from it
	Text string // what is wrong and what to do
}

// Error lists all that is wrong with a configuration file.
type Error struct {
	File     string
	Problems []Problem
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
		if p.Key != "" {
			b.WriteString(p.Key + ": ")
		}
		b.WriteString(p.Text)
	}
	return b.String()
}

// problems collects what Validate finds.
type problems struct{ list []Problem }

func (p *problems) add(key, format string, args ...any) {
	p.list = append(p.list, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// role is what every configuration struct can do.
type role interface {
	name() string
	defaults()
	validate(*problems)
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// load reads file into cfg. The result is complete and valid, or the error
// is an *Error that lists everything that is wrong.
func load(file string, cfg role) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if info.Size() > maxFile {
		return &Error{file, []Problem{{Text: fmt.Sprintf("larger than %d bytes; this is not a configuration file", maxFile)}}}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return &Error{file, []Problem{{Text: strings.TrimPrefix(err.Error(), "yaml: ")}}}
	}
	lines := map[string]int{}
	known := keys(reflect.TypeOf(cfg).Elem(), "")
	var found problems
	if len(doc.Content) > 0 {
		walk(doc.Content[0], "", known, lines, &found)
	}
	if len(found.list) > 0 {
		if other := roleOf(doc.Content[0], cfg); other != "" {
			found.list = []Problem{{Text: fmt.Sprintf("this is a configuration of %s, not of %s; name another file, or use the commands of that role", other, cfg.name())}}
		}
		return &Error{file, found.list}
	}

	v := viper.New()
	v.SetConfigType("yaml")
	v.SetEnvPrefix("KONTOR")
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	for _, key := range known {
		if err := v.BindEnv(key); err != nil {
			return err
		}
	}
	if err := v.ReadConfig(bytes.NewReader(raw)); err != nil {
		return &Error{file, []Problem{{Text: err.Error()}}}
	}
	cfg.defaults()
	err = v.UnmarshalExact(cfg, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc())))
	if err != nil {
		return &Error{file, decodeProblems(err, lines)}
	}
	cfg.validate(&found)
	if len(found.list) == 0 {
		return nil
	}
	for i, p := range found.list {
		found.list[i].Line = lines[p.Key]
	}
	return &Error{file, found.list}
}

// keys lists the paths of all values of a configuration struct.
func keys(t reflect.Type, prefix string) []string {
	var all []string
	for f := range t.Fields() {
		name := f.Tag.Get("mapstructure")
		if f.Type.Kind() == reflect.Struct && !reflect.PointerTo(f.Type).Implements(textType) {
			all = append(all, keys(f.Type, prefix+name+".")...)
		} else {
			all = append(all, prefix+name)
		}
	}
	return all
}

var textType = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()

// walk notes the line of every key and refuses unknown and repeated ones.
func walk(n *yaml.Node, prefix string, known []string, lines map[string]int, found *problems) {
	if n.Kind != yaml.MappingNode {
		found.list = append(found.list, Problem{Line: n.Line, Key: strings.TrimSuffix(prefix, "."), Text: "a mapping of keys to values is expected here"})
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		path := prefix + k.Value
		if lines[path] > 0 {
			found.list = append(found.list, Problem{Line: k.Line, Key: path, Text: fmt.Sprintf("given twice, first in line %d; remove one", lines[path])})
		}
		lines[path] = k.Line
		section := slices.ContainsFunc(known, func(s string) bool { return strings.HasPrefix(s, path+".") })
		switch {
		case section:
			walk(v, path+".", known, lines, found)
		case !slices.Contains(known, path):
			found.list = append(found.list, Problem{Line: k.Line, Key: path, Text: "unknown key" + suggestion(path, known)})
		}
	}
}

// roleOf returns the name of another role than cfg's if the document has keys of
// that one only, and none it has twice.
func roleOf(doc *yaml.Node, cfg role) string {
	for _, other := range []role{new(Gateway), new(Registry), new(Mirror), new(Trust)} {
		var found problems
		walk(doc, "", keys(reflect.TypeOf(other).Elem(), ""), map[string]int{}, &found)
		if len(found.list) == 0 && other.name() != cfg.name() {
			return other.name()
		}
	}
	return ""
}

// suggestion names the known key that looks most like the unknown one.
func suggestion(path string, known []string) string {
	best, least := "", 4
	for _, k := range known {
		if d := distance(path, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "; remove it, or see the commented example in deploy/"
	}
	return "; did you mean " + best + "?"
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// decodeProblems turns the decoder's errors into problems with lines.
func decodeProblems(err error, lines map[string]int) []Problem {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var all []Problem
		for _, e := range joined.Unwrap() {
			all = append(all, decodeProblems(e, lines)...)
		}
		return all
	}
	text := err.Error()
	for key, line := range lines {
		if strings.Contains(text, "'"+key+"'") {
			return []Problem{{key, line, text}}
		}
	}
	return []Problem{{Text: text}}
}

// Size is a number of bytes, written as 65536, 64KiB, 10MiB or 1GiB.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(b []byte) error {
	text := string(b)
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = strings.TrimSpace(rest), u
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size; write a number of bytes, or a number with KiB, MiB or GiB", b)
	}
	*s = Size(n * unit)
	return nil
}

func (s Size) String() string {
	for _, u := range []struct {
		suffix string
		size   Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Logging says how a role logs.
type Logging struct {
	Level  string `mapstructure:"level"`  // debug, info, warn, error
	Format string `mapstructure:"format"` // json or console
}

func (l *Logging) defaults() { *l = Logging{Level: "info", Format: "json"} }

func (l *Logging) validate(p *problems) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		p.add("logging.level", "%q is not a level; use debug, info, warn or error", l.Level)
	}
	if l.Format != "json" && l.Format != "console" {
		p.add("logging.format", "%q is not a format; use json or console", l.Format)
	}
}

// atLeast refuses a duration that is too short to be meant.
func atLeast(p *problems, key string, d, least time.Duration) {
	if d < least {
		p.add(key, "%s is too short; at least %s is needed", d, least)
	}
}
