// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kontor/registry/globalconf"
)

// A configuration proxy changes the sources of documents that others wrote, and
// nothing else.
func TestReplaceSources(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../shared/vectors/globalconf/*/*/*/shared-params.xml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no documents of central servers here")
	}
	sources := []globalconf.Source{{Address: "mirror & co", InternalCerts: [][]byte{{1}}, ExternalCerts: [][]byte{{2}, {3}}}}
	replaced := 0
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for v := 3; v <= globalconf.CurrentVersion; v++ {
			if _, err := globalconf.ParseSharedParams(doc, v); err != nil {
				continue // of another version, or made to be refused
			}
			got, err := globalconf.ReplaceSources(doc, v, sources)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			replaced++
			cut := func(s string) string {
				i, j := strings.Index(s, "<source>"), strings.LastIndex(s, "</source>")
				return s[:i] + s[j:]
			}
			if cut(string(got)) != cut(string(doc)) {
				t.Errorf("%s: more has changed", file)
			}
			if p, err := globalconf.ParseSharedParams(got, v); err != nil || len(p.Sources) != 1 || p.Sources[0].Address != "mirror & co" {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if replaced == 0 {
		t.Error("no document could be used")
	}
	if _, err := globalconf.ReplaceSources([]byte("<x/>"), 6, sources); !errors.Is(err, globalconf.ErrMalformed) {
		t.Errorf("nonsense: %v", err)
	}
}
