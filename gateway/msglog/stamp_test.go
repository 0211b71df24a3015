// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/gateway/msglog"
	"kontor/pki/tsa"
)

func TestStampForms(t *testing.T) {
	t.Parallel()
	f := &fakeTSA{}
	l := openMem(t, config(newClock(), f), vfs.NewMem())
	defer closeLog(t, l)
	if err := l.StampNow(t.Context()); err != nil || f.calls() != 0 {
		t.Errorf("nothing to stamp: %v, asked %d times", err, f.calls())
	}
	appendRecord(t, l, record("a", nil), nil)
	if _, err := l.Container(t.Context(), 1, false); !errors.Is(err, msglog.ErrNotStamped) {
		t.Errorf("container of an unstamped record: %v", err)
	}
	c, err := l.Container(t.Context(), 1, true)
	if err != nil {
		t.Fatal(err)
	}
	if c.Timestamp != nil || !bytes.Contains(c.Signatures, []byte("<xades:SignatureTimeStamp>")) {
		t.Error("a single record should carry its time-stamp in the signature")
	}
	for _, id := range []string{"b", "c", "d"} {
		appendRecord(t, l, record(id, nil), nil)
	}
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.calls() != 2 {
		t.Errorf("%d tokens for two batches", f.calls())
	}
	for seq := uint64(2); seq <= 4; seq++ {
		c, err := l.Container(t.Context(), seq, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Timestamp) == 0 || !bytes.Equal(c.TSChainResult, f.stamps[1]) || len(c.TSChain) == 0 {
			t.Errorf("record %d has no batch time-stamp", seq)
		}
	}
	// A document that cannot take up a token is stamped from outside.
	odd := record("odd", nil)
	odd.Evidence.Signature = []byte("<odd/>")
	appendRecord(t, l, odd, nil)
	if c, err := l.Container(t.Context(), 5, true); err != nil || len(c.Timestamp) == 0 {
		t.Errorf("odd signature: %v", err)
	}
	if rep := checkLog(t, l); rep.Stamped != 5 {
		t.Errorf("%d stamped", rep.Stamped)
	}
}

func TestLongQueue(t *testing.T) {
	t.Parallel()
	f := &fakeTSA{}
	l := openMem(t, config(newClock(), f), vfs.NewMem())
	defer closeLog(t, l)
	l.SetBatch(10)
	for range 31 {
		r := *crashRecords()[0]
		appendRecord(t, l, &r, nil)
	}
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.calls() != 4 {
		t.Errorf("%d tokens for 31 records in batches of 10", f.calls())
	}
	checkLog(t, l)
	var buf bytes.Buffer
	if n, err := l.ExportZip(t.Context(), &buf, msglog.Query{}, false); n != 31 || err != nil {
		t.Errorf("export: %d %v", n, err)
	}
}

func TestTimestampingFails(t *testing.T) {
	t.Parallel()
	c, f := newClock(), &fakeTSA{}
	cfg := config(c, f)
	cfg.FailurePeriod = time.Hour
	fs := vfs.NewMem()
	l := openMem(t, cfg, fs)
	appendRecord(t, l, record("a", nil), nil)
	f.set(errDown)
	if err := l.StampNow(t.Context()); !errors.Is(err, msglog.ErrTimestamping) || !errors.Is(err, errDown) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Container(t.Context(), 1, true); !errors.Is(err, msglog.ErrTimestamping) {
		t.Errorf("forced container: %v", err)
	}
	c.Advance(30 * time.Minute)
	_ = l.StampNow(t.Context())
	if s := l.Stats(); !s.FailingSince.Equal(epoch) || !s.RefuseAt.Equal(epoch.Add(time.Hour)) ||
		s.Unstamped != 1 || !s.OldestUnstamped.Equal(epoch) || !errors.Is(s.StampError, errDown) {
		t.Errorf("stats %+v", s)
	}
	appendRecord(t, l, record("within the period", nil), nil)
	// A restart does not begin the period anew.
	closeLog(t, l)
	l = openMem(t, cfg, fs)
	defer func() { closeLog(t, l) }()
	c.Advance(30 * time.Minute)
	appendRecord(t, l, record("at its end", nil), nil)
	c.Advance(time.Second)
	err := l.Append(t.Context(), record("beyond", nil))
	if !errors.Is(err, msglog.ErrTimestamping) || !strings.Contains(err.Error(), "since 2026-03-01T12:00:00Z") || !strings.Contains(err.Error(), "check the time-stamping authority") {
		t.Errorf("got %v", err)
	}
	f.set(nil)
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendRecord(t, l, record("again", nil), nil)
	if s := l.Stats(); !s.FailingSince.IsZero() || !s.RefuseAt.IsZero() || s.Unstamped != 1 || s.StampError != nil {
		t.Errorf("stats %+v", s)
	}
	if rep := checkLog(t, l); rep.Records != 4 || rep.Stamped != 3 {
		t.Errorf("check %+v", rep)
	}
	closeLog(t, l)
	l = openMem(t, cfg, fs)
	if s := l.Stats(); !s.FailingSince.IsZero() {
		t.Error("the failure came back with a restart")
	}
}

func TestNoLimitOfFailures(t *testing.T) {
	t.Parallel()
	c, f := newClock(), &fakeTSA{}
	f.set(errDown)
	cfg := config(c, f)
	cfg.FailurePeriod = -1
	l := openMem(t, cfg, vfs.NewMem())
	defer closeLog(t, l)
	appendRecord(t, l, record("a", nil), nil)
	_ = l.StampNow(t.Context())
	c.Advance(1000 * time.Hour)
	appendRecord(t, l, record("b", nil), nil)
	if s := l.Stats(); s.FailingSince.IsZero() || !s.RefuseAt.IsZero() {
		t.Errorf("stats %+v", s)
	}
}

func TestNoTSA(t *testing.T) {
	t.Parallel()
	cfg := config(newClock(), &fakeTSA{})
	configured := false
	cfg.HasTSA = func() bool { return configured }
	l := openMem(t, cfg, vfs.NewMem())
	defer closeLog(t, l)
	if err := l.Append(t.Context(), record("a", nil)); !errors.Is(err, msglog.ErrNoTSA) {
		t.Errorf("got %v", err)
	}
	configured = true
	appendRecord(t, l, record("a", nil), nil)
	cfg.Stamp = nil
	l2 := openMem(t, cfg, vfs.NewMem())
	defer closeLog(t, l2)
	if err := l2.Append(t.Context(), record("a", nil)); !errors.Is(err, msglog.ErrNoTSA) {
		t.Errorf("got %v", err)
	}
}

// TestCancelledStamp: a caller that gives up is no failure of the authority.
func TestCancelledStamp(t *testing.T) {
	t.Parallel()
	cfg := config(newClock(), &fakeTSA{})
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Stamp = func(ctx context.Context, _ []byte) (*tsa.Token, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l := openMem(t, cfg, vfs.NewMem())
	defer closeLog(t, l)
	appendRecord(t, l, record("a", nil), nil)
	if err := l.StampNow(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s := l.Stats(); !s.FailingSince.IsZero() {
		t.Error("counted as a failure")
	}
}

// TestRun follows the pace of stamping through a failure of the authority.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTSA{}
		cfg := msglog.Config{Dir: "log", Stamp: f.Stamp, FailurePeriod: 10 * time.Minute,
			Interval: func() time.Duration { return 5 * time.Minute }}
		l := openMem(t, cfg, vfs.NewMem())
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- l.Run(ctx) }()
		expect := func(after time.Duration, asked int, unstamped uint64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if s := l.Stats(); f.calls() != asked || s.Unstamped != unstamped {
				t.Errorf("asked %d times, %d wait; want %d and %d", f.calls(), s.Unstamped, asked, unstamped)
			}
		}
		add := func(id string) {
			t.Helper()
			r := record(id, nil)
			r.Time = time.Time{}
			appendRecord(t, l, r, nil)
		}
		expect(time.Hour, 0, 0)
		add("a")
		expect(4*time.Minute, 0, 1)
		add("b")
		expect(2*time.Minute, 1, 0)
		f.set(errDown)
		add("c")
		expect(5*time.Minute+time.Second, 2, 1)
		expect(time.Minute, 3, 1)
		expect(time.Minute, 4, 1)
		expect(9*time.Minute, 13, 1)
		if err := l.Append(t.Context(), record("refused", nil)); !errors.Is(err, msglog.ErrTimestamping) {
			t.Errorf("got %v", err)
		}
		f.set(nil)
		expect(time.Minute, 14, 0)
		add("d")
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		closeLog(t, l)
	})
}

// TestFullBatch: a batch that is full is stamped at once, if the authority
// answers.
func TestFullBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTSA{}
		l := openMem(t, msglog.Config{Dir: "log", Stamp: f.Stamp}, vfs.NewMem())
		l.SetBatch(10)
		ctx, cancel := context.WithCancel(t.Context())
		go l.Run(ctx)
		fill := func(n, asked int, unstamped uint64) {
			t.Helper()
			for range n {
				r := *crashRecords()[0]
				r.Time = time.Time{}
				appendRecord(t, l, &r)
			}
			synctest.Wait()
			if s := l.Stats(); f.calls() != asked || s.Unstamped != unstamped {
				t.Errorf("asked %d times, %d wait; want %d and %d", f.calls(), s.Unstamped, asked, unstamped)
			}
		}
		fill(9, 0, 9)
		fill(1, 1, 0)
		fill(3, 1, 3)
		f.set(errDown)
		fill(7, 2, 10)
		fill(10, 2, 20) // not asked again before its time
		f.set(nil)
		time.Sleep(time.Minute)
		fill(0, 4, 0)
		checkLog(t, l)
		cancel()
		synctest.Wait()
		closeLog(t, l)
	})
}

func TestIntervalBounds(t *testing.T) {
	for _, test := range []struct {
		configured, min, want time.Duration
	}{
		{time.Second, 0, time.Minute},
		{time.Second, time.Second, time.Second},
		{48 * time.Hour, 0, 24 * time.Hour},
	} {
		t.Run(fmt.Sprint(test.configured), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeTSA{}
				l := openMem(t, msglog.Config{Dir: "log", Stamp: f.Stamp, MinInterval: test.min,
					Interval: func() time.Duration { return test.configured }}, vfs.NewMem())
				r := record("a", nil)
				r.Time = time.Time{}
				appendRecord(t, l, r, nil)
				ctx, cancel := context.WithCancel(t.Context())
				go l.Run(ctx)
				time.Sleep(test.want - time.Millisecond)
				synctest.Wait()
				before := f.calls()
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if before != 0 || f.calls() != 1 {
					t.Errorf("asked %d times before %v and %d after", before, test.want, f.calls())
				}
				cancel()
				synctest.Wait()
				closeLog(t, l)
			})
		})
	}
}
