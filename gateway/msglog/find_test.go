// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"kontor/gateway/msglog"
	"kontor/registry/id"
)

// naive answers a query from a list.
func naive(list []*msglog.Record, q msglog.Query) []uint64 {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *msglog.Record) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq))
	})
	if q.Newest {
		slices.Reverse(list)
	}
	skip := q.After != 0
	var found []uint64
	for _, r := range list {
		if skip {
			skip = r.Seq != q.After
			continue
		}
		if (q.MessageID == "" || q.MessageID == r.MessageID) &&
			(q.Client.IsZero() || q.Client == r.Client) &&
			(q.Service.IsZero() || q.Service == r.Service) &&
			(q.Side == 0 || q.Side == r.Side) &&
			(q.Direction == msglog.Both || (q.Direction == msglog.Responses) == r.Response) &&
			(q.From.IsZero() || !r.Time.Before(q.From)) &&
			(q.To.IsZero() || r.Time.Before(q.To)) {
			found = append(found, r.Seq)
		}
		if q.Limit > 0 && len(found) == q.Limit {
			break
		}
	}
	return found
}

func found(t interface{ Fatal(...any) }, l *msglog.Log, q msglog.Query) []uint64 {
	var seqs []uint64
	for e, err := range l.Find(context.Background(), q) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

func TestFindAgainstModel(t *testing.T) {
	t.Parallel()
	proto := record("m", nil)
	ids := []string{"a", "b", "a b", "ä/%", "aa"}
	clients := []id.Client{client("DEV/GOV/1/a"), client("DEV/GOV/1/b"), client("DEV/GOV/1")}
	services := []id.Service{service("DEV/COM/2/x/s"), service("DEV/COM/2/x/s2")}
	when := rapid.Map(rapid.IntRange(0, 5), func(i int) time.Time { return epoch.Add(time.Duration(i) * time.Second) })
	rapid.Check(t, func(t *rapid.T) {
		l, err := msglog.OpenFS(config(newClock(), &fakeTSA{}), vfs.NewMem(), smallTables)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var list []*msglog.Record
		for range rapid.IntRange(0, 30).Draw(t, "records") {
			r := *proto
			r.MessageID = rapid.SampledFrom(ids).Draw(t, "id")
			r.Client = rapid.SampledFrom(clients).Draw(t, "client")
			r.Service = rapid.SampledFrom(services).Draw(t, "service")
			r.Side = rapid.SampledFrom([]msglog.Side{msglog.Client, msglog.Server}).Draw(t, "side")
			r.Response = rapid.Bool().Draw(t, "response")
			r.Time = when.Draw(t, "time")
			if err := l.Append(context.Background(), &r); err != nil {
				t.Fatal(err)
			}
			list = append(list, &r)
		}
		for range 10 {
			var q msglog.Query
			q.MessageID = rapid.SampledFrom(append(ids, "", "", "", "none")).Draw(t, "query id")
			q.Client = rapid.SampledFrom(append(clients, id.Client{}, id.Client{}, client("DEV/X/Y"))).Draw(t, "query client")
			q.Service = rapid.SampledFrom(append(services, id.Service{}, id.Service{})).Draw(t, "query service")
			q.Side = rapid.SampledFrom([]msglog.Side{0, msglog.Client, msglog.Server}).Draw(t, "query side")
			q.Direction = rapid.SampledFrom([]msglog.Direction{msglog.Both, msglog.Requests, msglog.Responses}).Draw(t, "query direction")
			if rapid.Bool().Draw(t, "from?") {
				q.From = when.Draw(t, "from")
			}
			if rapid.Bool().Draw(t, "to?") {
				q.To = when.Draw(t, "to")
			}
			if len(list) > 0 && rapid.Bool().Draw(t, "after?") {
				q.After = rapid.Uint64Range(1, uint64(len(list))).Draw(t, "after")
			}
			q.Limit = rapid.IntRange(0, 4).Draw(t, "limit")
			q.Newest = rapid.Bool().Draw(t, "newest")
			if got, want := found(t, l, q), naive(list, q); !slices.Equal(got, want) {
				t.Fatalf("%+v: got %v, want %v", q, got, want)
			}
		}
	})
}

func TestFindLoop(t *testing.T) {
	t.Parallel()
	l := openMem(t, config(newClock(), &fakeTSA{}), vfs.NewMem())
	for range 3 {
		appendRecord(t, l, record("m", nil), nil)
	}
	n := 0
	for e, err := range l.Find(t.Context(), msglog.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		// The loop does not see what is appended while it runs, and other calls
		// go on within it.
		appendRecord(t, l, record("more", nil), nil)
		if _, err := l.Get(t.Context(), e.Seq); err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d records", n)
	}
	for range l.Find(t.Context(), msglog.Query{}) {
		break
	}
	for _, err := range l.Find(t.Context(), msglog.Query{After: 99}) {
		if !errors.Is(err, msglog.ErrNotFound) {
			t.Errorf("unknown start: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range l.Find(ctx, msglog.Query{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	if got := found(t, l, msglog.Query{From: time.Unix(-5, 0), To: time.Unix(1<<40, 0)}); len(got) != 6 {
		t.Errorf("far bounds: %v", got)
	}
	if got := found(t, l, msglog.Query{From: time.Unix(1<<40, 0)}); len(got) != 0 {
		t.Errorf("future: %v", got)
	}
	closeLog(t, l)
	for _, err := range l.Find(t.Context(), msglog.Query{}) {
		if !errors.Is(err, msglog.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}
