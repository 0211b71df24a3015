// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"kontor/config"
	"kontor/integration/testnet"
)

// TestFairness: a client that asks without end, of a service that does not
// answer, gets its share of the gateway and no more; another does not notice.
func TestFairness(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(name string, cfg *config.Gateway) {
		if name == "A" {
			cfg.Limits.Exchanges = 10
		}
	}})
	const share, asked = 8, 20 // four fifths of ten
	release, working := make(chan struct{}), make(chan struct{}, asked)
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "greedy" {
			working <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	persons := testnet.Path(testnet.Persons)
	results := make(chan *testnet.Result, asked)
	var greedy sync.WaitGroup
	ask := func(times int) {
		for range times {
			greedy.Go(func() { results <- n.Call(testnet.Portal, "GET", persons+"?greedy", nil) })
		}
	}
	ask(share)
	for range share {
		<-working
	}
	ask(asked - share)
	for range asked - share {
		res := <-results
		if res.Code != "server.clientproxy.service_unavailable" || res.Status != http.StatusServiceUnavailable && res.Status != http.StatusInternalServerError ||
			!strings.Contains(res.Fault.Message, "8 exchanges of yours") {
			t.Fatalf("beyond its share: %d %s %s", res.Status, res.Code, res.Fault.Message)
		}
	}
	for range 5 {
		res := n.Do(n.HTTPS("client"), n.ToTLS(n.NewRequest(testnet.Pinned, "GET", persons, nil)))
		if res.Err != nil || res.Status != http.StatusOK {
			t.Fatalf("the modest client: %d %s %v", res.Status, res.Code, res.Err)
		}
	}
	close(release)
	greedy.Wait()
	for range share {
		if res := <-results; res.Status != http.StatusOK {
			t.Errorf("within its share: %d %s", res.Status, res.Code)
		}
	}
	if res := n.Call(testnet.Portal, "GET", persons, nil); res.Status != http.StatusOK {
		t.Errorf("afterwards: %d %s", res.Status, res.Code)
	}
}
