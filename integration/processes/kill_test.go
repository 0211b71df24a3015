// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kontor/gateway/msglog"
)

// span is a stretch of time.
type span struct{ from, to time.Time }

func (s span) overlaps(o span) bool { return s.from.Before(o.to) && o.from.Before(s.to) }

// delivered is an exchange that the client saw succeed, with what went over.
type delivered struct {
	request
	messageID  string
	sent, got  [sha256.Size]byte
	sentLength int
	gotLength  int
}

// broken is an exchange that gave no answer.
type broken struct {
	gateway int
	during  span
	err     error
}

// failure is an exchange that was answered with a fault.
type failure struct {
	gateway int
	during  span
	text    string
}

// load is a number of clients that make exchanges without a pause.
type load struct {
	n       *network
	cancel  context.CancelFunc
	clients sync.WaitGroup
	good    [2]atomic.Int64 // by the client's gateway

	mu        sync.Mutex
	delivered []delivered
	faults    map[string]int // by code and text
	late      []failure      // all faults, to see when they came
	unclear   []error        // faults that explain nothing, and answers that are wrong
	broken    []broken
}

// mixture returns the request number i of a client: small and large bodies,
// both directions.
func mixture(i int, random []byte) request {
	small, large := random[:200], random
	switch i % 6 {
	case 0:
		return request{0, "POST", portal, persons, "", small}
	case 1:
		return request{1, "POST", population, messages, "", []byte(fmt.Sprintf(`{"text":"%x"}`, small))}
	case 2:
		return request{0, "POST", portal, persons, "", large}
	case 3:
		return request{0, "GET", portal, persons, "/bytes/200000", nil}
	case 4:
		return request{1, "POST", population, messages, "", []byte(fmt.Sprintf("%x", large))}
	}
	return request{0, "GET", portal, persons, "/38001010001", nil}
}

func startLoad(n *network, clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{n: n, cancel: cancel, faults: map[string]int{}}
	for c := range clients {
		l.clients.Go(func() { l.client(ctx, c) })
	}
	return l
}

// hang is the time after which a client says that it got no answer at all. The
// gateways' own limits are shorter.
const hang = 100 * time.Second

func (l *load) client(ctx context.Context, number int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: hang}
	defer client.CloseIdleConnections()
	random := make([]byte, 200_000)
	source := rand.NewChaCha8([32]byte{byte(number)})
	for i := number; ctx.Err() == nil; i++ {
		_, _ = source.Read(random) // never fails
		r := mixture(i, random)
		began := time.Now()
		// Not with ctx: an exchange under way ends by itself.
		resp, err := l.n.do(context.Background(), client, r)
		if !l.note(r, resp, span{began, time.Now()}, err) {
			time.Sleep(20 * time.Millisecond) // a busy loop would only slow the restart
		}
	}
}

func (l *load) note(r request, resp *response, during span, err error) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.broken = append(l.broken, broken{r.gateway, during, err})
	case resp.fault != "":
		var f struct{ Message string }
		_ = json.Unmarshal(resp.body, &f) // clearFault tells
		text := resp.fault + ": " + f.Message
		l.faults[text]++
		l.late = append(l.late, failure{r.gateway, during, text})
		if err := clearFault(resp); err != nil {
			l.unclear = append(l.unclear, err)
		}
	case resp.status >= 300 || resp.messageID == "":
		l.unclear = append(l.unclear, fmt.Errorf("status %d without a fault, message id %q: %.300s", resp.status, resp.messageID, resp.body))
	default:
		if r.path == "" && strings.HasSuffix(r.service, "/persons") && !bytes.Equal(resp.body, r.body) {
			l.unclear = append(l.unclear, fmt.Errorf("the echo of %d bytes is another, of %d bytes", len(r.body), len(resp.body)))
		}
		d := delivered{r, resp.messageID, sha256.Sum256(r.body), sha256.Sum256(resp.body), len(r.body), len(resp.body)}
		d.body = nil
		l.delivered = append(l.delivered, d)
		l.good[r.gateway].Add(1)
		return true
	}
	return false
}

// progress waits until so many more exchanges have succeeded each way.
func (l *load) progress(t testing.TB, more int64) {
	t.Helper()
	goal := [2]int64{l.good[0].Load() + more, l.good[1].Load() + more}
	eventually(t, "exchanges that succeed", func() error {
		if a, b := l.good[0].Load(), l.good[1].Load(); a < goal[0] || b < goal[1] {
			return fmt.Errorf("%d and %d of %v; faults: %v", a, b, goal, l.faultCounts())
		}
		return nil
	})
}

func (l *load) faultCounts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.faults)
}

func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
}

// TestKill kills gateways while exchanges run. Whatever was answered with
// success must be proven by both sides afterwards.
func TestKill(t *testing.T) {
	kills := 3
	if s := os.Getenv("KONTOR_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("KONTOR_KILLS: %v", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir, "--processes")
	began := time.Now()
	l := startLoad(s.network, 8)
	t.Cleanup(l.stop)
	down := [2][]span{}
	for k := range kills {
		l.progress(t, 15)
		time.Sleep(rand.N(100 * time.Millisecond)) // any moment of an exchange
		victim := k % 2
		pid := s.Gateways[victim].PID
		dead := span{from: time.Now()}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "restart of the gateway", func() error {
			if err := s.refresh(); err != nil {
				return err
			}
			if s.Gateways[victim].PID == pid {
				return errors.New("sandbox.json names the dead process")
			}
			return ready(s.Gateways[victim].Metrics)
		})
		dead.to = time.Now()
		down[victim] = append(down[victim], dead)
	}
	l.progress(t, 15)
	l.stop()
	t.Logf("%d kills in %s: %d exchanges succeeded (%d and %d), %d got no answer, faults: %v", kills, time.Since(began).Round(time.Millisecond),
		len(l.delivered), l.good[0].Load(), l.good[1].Load(), len(l.broken), l.faults)

	late := map[string]int{}
	for _, f := range l.late {
		if !slices.ContainsFunc(slices.Concat(down[0], down[1]), f.during.overlaps) {
			late[f.text]++
		}
	}
	if len(late) > 0 {
		t.Errorf("exchanges failed although both gateways were ready all the time: %v", late)
	}
	for _, err := range l.unclear {
		t.Error(err)
	}
	for _, b := range l.broken {
		var timeout net.Error
		if errors.As(b.err, &timeout) && timeout.Timeout() {
			t.Errorf("a client of gateway-%d waited in vain: %v", b.gateway+1, b.err)
		} else if !slices.ContainsFunc(down[b.gateway], b.during.overlaps) {
			t.Errorf("gateway-%d did not answer although nobody killed it: %v", b.gateway+1, b.err)
		}
	}
	checkEvidence(t, s.network, l.delivered)
	s.stop(t)
	for _, g := range s.Gateways {
		checkLog(t, g)
	}
}

// logged is one record of a gateway.
type logged struct {
	gateway, direction int // 0 request, 1 response
	messageID          string
}

// checkEvidence exports the whole logs of both gateways and demands valid
// evidence of every delivered exchange, of both messages on both sides.
func checkEvidence(t *testing.T, n *network, all []delivered) {
	began := time.Now()
	found := map[logged]map[string][]byte{}
	records := 0
	for i, g := range n.Gateways {
		for _, side := range []string{"client", "server"} {
			for direction, name := range []string{"request", "response"} {
				file := filepath.Join(t.TempDir(), "export.zip")
				kontor(t, 0, "log", "export", "--config", g.Config, "--side", side, "--direction", name, "--force", "--out", file)
				containers := unzip(t, read(t, file))
				r := demand(t, 0, binary(t, "kontor-verify"), file, "--anchor", n.Anchor, "--conf", g.globalconf(), "--output", "json")
				var verdict struct {
					Reports []struct {
						Valid     bool
						File      string
						MessageID string `json:"message_id"`
						Direction string
					}
				}
				if err := json.Unmarshal([]byte(r.out), &verdict); err != nil {
					t.Fatal(err)
				}
				if len(verdict.Reports) != len(containers) {
					t.Fatalf("%d verdicts on %d containers", len(verdict.Reports), len(containers))
				}
				for _, v := range verdict.Reports {
					_, entry, _ := strings.Cut(v.File, ": ")
					if !v.Valid || v.Direction != name || containers[entry] == nil {
						t.Fatalf("%+v", v)
					}
					key := logged{i, direction, v.MessageID}
					if found[key] != nil {
						t.Errorf("%+v is there twice", key)
					}
					found[key] = unzip(t, containers[entry])
					records++
				}
				os.Remove(file)
			}
		}
	}
	missing := 0
	for _, d := range all {
		for i := range 2 {
			for direction, want := range [][sha256.Size]byte{d.sent, d.got} {
				entries := found[logged{i, direction, d.messageID}]
				length := []int{d.sentLength, d.gotLength}[direction]
				switch body := entries["attachment1"]; {
				case entries == nil:
					missing++
					t.Errorf("gateway-%d has no %s of %s, which was answered with success", i+1, []string{"request", "response"}[direction], d.messageID)
				case len(body) != length || length > 0 && sha256.Sum256(body) != want:
					t.Errorf("gateway-%d: the body of %s is not what the client saw: %d bytes, not %d", i+1, d.messageID, len(body), length)
				}
			}
		}
	}
	t.Logf("%d records exported and verified in %s; %d of %d that must be there are missing",
		records, time.Since(began).Round(time.Millisecond), missing, 4*len(all))
}

// checkLog reads the message log of a stopped gateway in full.
func checkLog(t testing.TB, g gateway) {
	t.Helper()
	l, err := msglog.Open(msglog.Config{Dir: g.messageLog(), Reserve: -1})
	if err != nil {
		t.Errorf("message log of %s: %v", g.Server, err)
		return
	}
	defer l.Close()
	report, err := l.Check(context.Background())
	if err != nil {
		t.Errorf("message log of %s: %v", g.Server, err)
		return
	}
	for _, p := range report.Problems {
		t.Errorf("message log of %s: %s", g.Server, p)
	}
	t.Logf("message log of %s: %d records, %d stamped, %d body files", g.Server, report.Records, report.Stamped, report.BodyFiles)
}
