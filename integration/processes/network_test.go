// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kontor/registry/id"
)

// network is what sandbox.json tells of a running ecosystem.
type network struct {
	Instance string `json:"instance"`
	Anchor   string `json:"anchor"`
	Registry struct {
		URL     string `json:"url"`
		Metrics string `json:"metrics"`
		Config  string `json:"config"`
		PID     int    `json:"pid"`
	} `json:"registry"`
	Trust struct {
		CA      string `json:"ca"`
		OCSP    string `json:"ocsp"`
		TSA     string `json:"tsa"`
		TSACert string `json:"tsa_cert"`
		Metrics string `json:"metrics"`
		Config  string `json:"config"`
		PID     int    `json:"pid"`
	} `json:"trust"`
	Gateways []gateway `json:"gateways"`
	Clients  []struct {
		ID      string `json:"id"`
		Gateway int    `json:"gateway"`
		Allowed bool   `json:"allowed"`
	} `json:"clients"`
	Services []struct {
		ID      string `json:"id"`
		Gateway int    `json:"gateway"`
		Backend string `json:"backend"`
	} `json:"services"`
}

type gateway struct {
	Server      string `json:"server"`
	Consumer    string `json:"consumer"`
	ConsumerTLS string `json:"consumer_tls"`
	Peer        string `json:"peer"`
	OCSP        string `json:"ocsp"`
	Admin       string `json:"admin"`
	Metrics     string `json:"metrics"`
	Data        string `json:"data"`
	Config      string `json:"config"`
	PID         int    `json:"pid"`
}

func (g gateway) globalconf() string { return filepath.Join(g.Data, "globalconf") }
func (g gateway) messageLog() string { return filepath.Join(g.Data, "messagelog") }

func readNetwork(file string) (*network, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	n := new(network)
	if err := json.Unmarshal(b, n); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(n.Gateways) != 2 {
		return nil, fmt.Errorf("%s names %d gateways", file, len(n.Gateways))
	}
	return n, nil
}

// request is one call of an information system.
type request struct {
	gateway                       int
	method, client, service, path string
	body                          []byte
}

// owner is the subsystem that provides the service.
func (r request) owner() id.Client {
	s, err := id.ParseService(r.service)
	if err != nil {
		panic(err)
	}
	return s.Owner()
}

// response is what the information system got. A body that broke off is an
// error.
type response struct {
	status    int
	header    http.Header
	body      []byte
	messageID string
	fault     string // code; empty if the answer is the service's
}

func (n *network) url(r request) string {
	return n.Gateways[r.gateway].Consumer + "/r1/" + r.service + r.path
}

func (n *network) do(ctx context.Context, client *http.Client, r request) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, n.url(r), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Road-Client", r.client)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &response{resp.StatusCode, resp.Header, b, resp.Header.Get("X-Road-Id"), resp.Header.Get("X-Road-Error")}, nil
}

// call makes one request, within the time that all waits have.
func (n *network) call(t testing.TB, r request) *response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := n.do(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, n.url(r), err)
	}
	return resp
}

// succeed makes one request and demands the service's answer.
func (n *network) succeed(t testing.TB, r request) *response {
	t.Helper()
	resp := n.call(t, r)
	if resp.fault != "" || resp.status >= 300 || resp.messageID == "" {
		t.Fatalf("%s %s: status %d, fault %q, message id %q: %s", r.method, n.url(r), resp.status, resp.fault, resp.messageID, resp.body)
	}
	return resp
}

// refused makes one request and demands a fault with that code.
func (n *network) refused(t testing.TB, r request, codes ...string) *response {
	t.Helper()
	resp := n.call(t, r)
	if !slices.Contains(codes, resp.fault) {
		t.Fatalf("%s %s: status %d, fault %q, want one of %q: %s", r.method, n.url(r), resp.status, resp.fault, codes, resp.body)
	}
	if err := clearFault(resp); err != nil {
		t.Errorf("%s %s: %v", r.method, n.url(r), err)
	}
	return resp
}

// clearFault tells whether an answer explains what went wrong, as X-Road's
// errors do.
func clearFault(r *response) error {
	var f struct{ Type, Message, Detail string }
	if err := json.Unmarshal(r.body, &f); err != nil {
		return fmt.Errorf("fault %s is not JSON: %w: %s", r.fault, err, r.body)
	}
	if r.status < 400 || f.Type != r.fault || len(f.Message) < 10 || f.Detail == "" {
		return fmt.Errorf("status %d, fault %s: %s", r.status, r.fault, r.body)
	}
	return nil
}

// asicURL is where a party downloads the signed documents of a message.
func (n *network) asicURL(gateway int, holder id.Client, messageID string) string {
	return n.Gateways[gateway].Consumer + "/asic?" + url.Values{"queryId": {messageID}, "xRoadInstance": {holder.Instance()},
		"memberClass": {holder.Member().Class()}, "memberCode": {holder.Member().Code()}, "subsystemCode": {holder.Subsystem()}}.Encode()
}

func get(address string) (int, []byte, error) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get(address)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// documents downloads the signed documents of a message as soon as they are
// time-stamped, and returns them by their direction.
func (n *network) documents(t testing.TB, gateway int, holder id.Client, messageID string) map[string][]byte {
	t.Helper()
	var archive []byte
	eventually(t, "signed documents of "+messageID, func() error {
		status, b, err := get(n.asicURL(gateway, holder, messageID))
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("status %d, %s, %v", status, b, err)
		}
		archive = b
		return nil
	})
	found := map[string][]byte{}
	for name, b := range unzip(t, archive) {
		for _, direction := range []string{"request", "response"} {
			if strings.Contains(name, "-"+direction+"-") {
				found[direction] = b
			}
		}
	}
	if len(found) != 2 {
		t.Fatalf("gateway %d holds %d signed documents of %s, want a request and a response", gateway, len(found), messageID)
	}
	return found
}

// bothSides downloads the documents of an exchange from both gateways, writes
// them to a folder and returns the files.
func (n *network) bothSides(t testing.TB, dir string, r request, messageID string) []string {
	t.Helper()
	client, err := id.ParseClient(r.client)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for i, holder := range []id.Client{client, r.owner()} {
		at := r.gateway
		if i == 1 {
			at = 1 - at
		}
		for direction, b := range n.documents(t, at, holder, messageID) {
			files = append(files, write(t, filepath.Join(dir, fmt.Sprintf("%s-%s-%d.asice", messageID, direction, at)), b))
		}
	}
	slices.Sort(files)
	return files
}

func write(t testing.TB, file string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unzip returns the entries of an archive by name.
func unzip(t testing.TB, archive []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[f.Name] = b
	}
	return found
}

// verify lets kontor-verify judge files by a gateway's global configuration.
func (n *network) verify(t testing.TB, gateway int, want int, files ...string) result {
	t.Helper()
	return demand(t, want, binary(t, "kontor-verify"), append(files, "--anchor", n.Anchor, "--conf", n.Gateways[gateway].globalconf())...)
}
