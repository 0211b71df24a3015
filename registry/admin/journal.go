// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"kontor/registry"
)

var errEnough = errors.New("page full")

func (a *API) registerJournal() {
	type page struct {
		From   uint64 `query:"from" doc:"First entry; with newest the last one. 0: from the beginning or the end"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
		Newest bool   `query:"newest" doc:"Newest first"`
	}
	op := operation{id: "read-journal", method: http.MethodGet, path: "/journal", roles: Roles(), summary: "Read the journal of changes, page by page"}
	huma.Register(a.api, op.huma(a), func(ctx context.Context, in *page) (*answer[Journal], error) {
		number := a.cfg.Registry.State().Number()
		limit := uint64(in.Limit)
		out := &answer[Journal]{etag(number), Journal{Entries: []Entry{}}}
		from, next := max(in.From, 1), uint64(0)
		if in.Newest {
			last := number
			if in.From != 0 {
				last = min(in.From, number)
			}
			from = 1
			if last > limit {
				from, next = last-limit+1, last-limit
			}
			limit = last - from + 1
		}
		if limit == 0 {
			return out, nil
		}
		err := a.cfg.Registry.Journal(ctx, from, func(e *registry.Entry) error {
			if uint64(len(out.Body.Entries)) == limit {
				if !in.Newest {
					next = e.Number
				}
				return errEnough
			}
			out.Body.Entries = append(out.Body.Entries, Entry{e.Number, e.Time, e.Author.Who, e.Author.Why, e.Author.Request, e.Change.String()})
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, a.problem(err)
		}
		if in.Newest {
			slices.Reverse(out.Body.Entries)
		}
		out.Body.Next = next
		return out, nil
	})
}
