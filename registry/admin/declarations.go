// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/danielgtaylor/huma/v2"

	"kontor/registry"
)

// Declaration is a declaration file with the files that it names.
type Declaration struct {
	Document string            `json:"document" doc:"YAML: what the registry shall hold"`
	Files    map[string][]byte `json:"files,omitempty" doc:"Content of the files that the document names"`
}

// LoadDeclaration reads a declaration file and the files that it names,
// relative to its folder.
func LoadDeclaration(file string) (Declaration, error) {
	doc, err := readFile(file)
	if err != nil {
		return Declaration{}, fmt.Errorf("declaration: %w", err)
	}
	d := Declaration{Document: string(doc), Files: map[string][]byte{}}
	_, err = registry.ParseEcosystem(doc, func(name string) ([]byte, error) {
		at := name
		if !filepath.IsAbs(at) {
			at = filepath.Join(filepath.Dir(file), at)
		}
		content, err := readFile(at)
		d.Files[name] = content
		return content, err
	})
	if err != nil {
		return d, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// readFile reads a file that may be part of a declaration.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDeclaration/2+1))
	if err == nil && len(b) > maxDeclaration/2 {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxDeclaration/2)
	}
	return b, err
}

// Hash tells declarations apart.
func (d *Declaration) Hash() (string, error) {
	b, err := json.Marshal(d) // map keys are sorted
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

// Changes are those that make a declaration true.
func (d *Declaration) Changes(st *registry.State) ([]registry.Change, error) {
	eco, err := registry.ParseEcosystem([]byte(d.Document), func(name string) ([]byte, error) {
		content, ok := d.Files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist} // files of the server are nobody's business
		}
		return content, nil
	})
	if err != nil {
		return nil, invalid(fmt.Errorf("declaration: %w", err))
	}
	changes, err := registry.Plan(st, eco)
	if err != nil {
		return nil, invalid(err)
	}
	return changes, nil
}

func (a *API) registerDeclarations() {
	huma.Register(a.api, operation{id: "plan-declaration", method: http.MethodPost, path: "/declarations/plan", long: true, reads: true, roles: Roles(),
		summary: "Show what applying a declaration would change", description: "A declaration that is not acceptable is refused as applying it would be.",
	}.huma(a), func(_ context.Context, in *struct{ Body Declaration }) (*answer[Done], error) {
		st := a.cfg.Registry.State()
		changes, err := in.Body.Changes(st)
		if err == nil {
			_, err = st.Try(changes)
		}
		if err != nil {
			return nil, a.problem(err)
		}
		out := &answer[Done]{etag(st.Number()), Done{Entry: st.Number(), Changes: []string{}}}
		for _, c := range changes {
			out.Body.Changes = append(out.Body.Changes, c.String())
		}
		return out, nil
	})
	type apply struct {
		ChangeTerms
		Body Declaration
	}
	change(a, operation{id: "apply-declaration", method: http.MethodPost, path: "/declarations/apply", long: true,
		roles: []string{RegistrationOfficer, SecurityOfficer, SystemAdministrator}, summary: "Make a declaration true, all of it or nothing",
		description: "Each change takes its own role. With the ETag of the plan as If-Match, exactly the plan is applied or nothing.",
	}, func(in *apply, st *registry.State) ([]registry.Change, error) {
		if in.IfMatch != "" && in.IfMatch != "*" && in.IfMatch != etag(st.Number()) {
			return nil, stale("the registry has changed since the plan was made")
		}
		return in.Body.Changes(st)
	})
}
