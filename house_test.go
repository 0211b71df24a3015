// SPDX-License-Identifier: Apache-2.0

// Package kontor_test enforces the rules of docs/design/house.md.
package kontor_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "kontor"

// walls names the only packages that may import a library.
var walls = map[string][]string{
	"github.com/smallstep/certificates": {"pki/ca"},
	"github.com/smallstep/nosql":        {"pki/ca"},
	"github.com/cockroachdb/pebble":     {"gateway/msglog", "registry", "pki/ca"},
	"github.com/jackc/pgx":              {"registry/postgres"},
	"github.com/getkin/kin-openapi":     {"gateway/description"},
	"go.opentelemetry.io":               {"gateway/tracing"},
	"github.com/quic-go":                {"gateway/tunnel"},
	"github.com/spf13/viper":            {"config"},
	"github.com/spf13/cobra":            {"cmd/kontor", "cmd/verify"},
}

// roots are the folders and files that may stand at the top.
var roots = []string{
	"cmd", "gateway", "pki", "registry", "config", "deploy", "integration", "docs",
	"go.mod", "go.sum", "Makefile", "README.md", "CHANGELOG.md", "LICENSE", "house_test.go",
}

type listed struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// table reads package and permitted imports from the design note.
func table(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("docs/design/house.md")
	if err != nil {
		t.Fatal(err)
	}
	may := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		name := strings.Trim(strings.TrimSpace(cells[1]), "`")
		may[name] = strings.Fields(strings.ReplaceAll(cells[3], "`", ""))
	}
	return may
}

func TestImportsGoDownward(t *testing.T) {
	may := table(t)
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "" || strings.HasPrefix(name, "integration") || len(p.GoFiles) == 0 {
			continue
		}
		seen[name] = true
		allowed, ok := may[name]
		if !ok && !strings.HasSuffix(name, "/gen") {
			t.Errorf("package %s has no row in docs/design/house.md", name)
			continue
		}
		for _, imp := range p.Imports {
			if rest, ours := strings.CutPrefix(imp, module+"/"); ours {
				if !slices.Contains(allowed, rest) && !slices.Contains(allowed, "all") && !strings.HasSuffix(name, "/gen") {
					t.Errorf("%s imports %s, which docs/design/house.md does not allow", name, rest)
				}
				continue
			}
			for lib, owners := range walls {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(owners, name) {
					t.Errorf("%s imports %s, which is behind the wall of %v", name, imp, owners)
				}
			}
		}
	}
	for name := range may {
		if !seen[name] {
			t.Errorf("docs/design/house.md has a row for %s, which does not exist", name)
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" || e.Name() == "sandbox" {
			continue // git's, CI's and build output
		}
		if !slices.Contains(roots, e.Name()) {
			t.Errorf("%s has no place at the top level", e.Name())
		}
	}
}

func TestFilesAndPackages(t *testing.T) {
	comments := map[string]int{}
	dirs := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || path == "sandbox") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(src), "// SPDX-License-Identifier: Apache-2.0\n") {
			t.Errorf("%s: the first line must be the SPDX line", path)
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		dirs[dir] = true
		if f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "" {
			comments[dir]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range dirs {
		if comments[dir] != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, comments[dir])
		}
	}
}
