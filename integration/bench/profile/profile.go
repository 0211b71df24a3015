// SPDX-License-Identifier: Apache-2.0

// Package profile tells on what a gateway spends its CPU time, by stage of the
// message path, from a CPU profile.
package profile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Stages, in the order of reports.
const (
	TLS     = "TLS"
	QUIC    = "QUIC"
	HTTP    = "HTTP"
	Network = "network system calls"
	Hash    = "hash"
	Sign    = "sign"
	Verify  = "verify"
	XML     = "XML"
	MIME    = "MIME and message heads"
	Log     = "message log, disk included"
	Report  = "log lines, metrics"
	Runtime = "runtime: scheduler, garbage collection"
	Other   = "other"
)

// Stages returns all stages in their order.
func Stages() []string {
	return []string{TLS, QUIC, HTTP, Network, Hash, Sign, Verify, XML, MIME, Log, Report, Runtime, Other}
}

// ByStage reads a CPU profile and returns the CPU time of each stage.
func ByStage(ctx context.Context, file string) (map[string]time.Duration, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-raw", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sums, err := read(out)
	if e := cmd.Wait(); e != nil {
		return nil, fmt.Errorf("go tool pprof: %w", e)
	}
	return sums, err
}

// read reads what go tool pprof -raw writes: samples, as lines of count,
// nanoseconds and the numbers of their locations, leaf first; then locations,
// each with its functions, the innermost first.
func read(r io.Reader) (map[string]time.Duration, error) {
	type sample struct {
		ns        int64
		locations []int
	}
	var samples []sample
	functions := map[int][]string{}
	section, location := "", 0
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		switch line {
		case "Samples:", "Locations", "Mappings":
			section = line
			continue
		}
		switch section {
		case "Samples:":
			values, stack, ok := strings.Cut(line, ":")
			f := strings.Fields(values)
			if !ok || len(f) != 2 || strings.Contains(f[0], "/") { // the names of the columns, a label
				continue
			}
			ns, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("sample %q: %w", line, err)
			}
			v := sample{ns: ns}
			for _, text := range strings.Fields(stack) {
				n, err := strconv.Atoi(text)
				if err != nil {
					return nil, fmt.Errorf("sample %q: %w", line, err)
				}
				v.locations = append(v.locations, n)
			}
			samples = append(samples, v)
		case "Locations":
			f := strings.Fields(line)
			if len(f) > 1 && strings.HasSuffix(f[0], ":") { // "12: 0x4d2 M=1 name file:line s=3"
				var err error
				if location, err = strconv.Atoi(strings.TrimSuffix(f[0], ":")); err != nil {
					return nil, fmt.Errorf("location %q: %w", line, err)
				}
				for f = f[1:]; len(f) > 0 && (strings.HasPrefix(f[0], "0x") || strings.HasPrefix(f[0], "M=")); {
					f = f[1:]
				}
			}
			if len(f) > 0 {
				functions[location] = append(functions[location], f[0])
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	sums := map[string]time.Duration{}
	for _, v := range samples {
		var stack []string
		for _, l := range v.locations {
			stack = append(stack, functions[l]...)
		}
		sums[stageOf(stack)] += time.Duration(v.ns)
	}
	return sums, nil
}

// rules say to which stage a function belongs; the first that matches counts.
// Whatever matches none belongs to its caller.
var rules = []struct{ prefix, stage string }{
	{"github.com/cockroachdb/pebble", Log},
	{"kontor/gateway/msglog.", Log},
	{"crypto/ecdsa.Sign", Sign}, {"crypto/ecdsa.(*PrivateKey).Sign", Sign}, {"crypto/rsa.Sign", Sign}, {"crypto/rsa.(*PrivateKey).Sign", Sign},
	{"crypto/internal/fips140/ecdsa.Sign", Sign}, {"crypto/internal/fips140/rsa.Sign", Sign},
	{"crypto/ecdsa.Verify", Verify}, {"crypto/rsa.Verify", Verify}, {"crypto/x509.", Verify},
	{"crypto/internal/fips140/ecdsa.Verify", Verify}, {"crypto/internal/fips140/rsa.Verify", Verify},
	{"golang.org/x/crypto/ocsp.", Verify}, {"kontor/pki/ocsp.", Verify}, {"kontor/pki/tsa.", Log},
	{"crypto/tls.", TLS},
	{"github.com/quic-go/", QUIC},
	{"kontor/pki/xades.", XML}, {"encoding/xml.", XML}, {"github.com/beevik/etree", XML}, {"github.com/russellhaering/", XML}, {"kontor/pki/asic.", XML},
	{"kontor/gateway/signer.", Sign},
	{"mime/multipart.", MIME}, {"kontor/gateway/message.", MIME},
	{"go.uber.org/zap", Report}, {"github.com/prometheus/", Report},
	{"net/http.", HTTP}, {"net/http/internal", HTTP}, {"net/textproto.", HTTP}, {"kontor/gateway/tunnel.", HTTP},
	{"kontor/", Other},
}

// hashes are functions of hashing, which belong to whoever signs, verifies or
// encrypts with them, and else are a stage of their own.
var hashes = []string{"crypto/sha256.", "crypto/sha512.", "crypto/internal/fips140/sha256.", "crypto/internal/fips140/sha512."}

// stageOf judges a stack, leaf first.
func stageOf(stack []string) string {
	hashing, network, foreign := false, false, false
	for _, f := range stack {
		for _, h := range hashes {
			hashing = hashing || strings.HasPrefix(f, h)
		}
		network = network || strings.HasPrefix(f, "net.(*netFD)") || strings.HasPrefix(f, "net.(*UDPConn)") || strings.HasPrefix(f, "net.(*rawConn)")
		foreign = foreign || !strings.HasPrefix(f, "runtime.") && !strings.HasPrefix(f, "internal/runtime/")
		for _, r := range rules {
			if !strings.HasPrefix(f, r.prefix) {
				continue
			}
			switch {
			case network:
				return Network
			case hashing && r.stage != TLS && r.stage != QUIC && r.stage != Sign && r.stage != Verify && r.stage != Log:
				return Hash
			}
			return r.stage
		}
	}
	switch {
	case network:
		return Network
	case hashing:
		return Hash
	case foreign:
		return Other
	}
	return Runtime
}
