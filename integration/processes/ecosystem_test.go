// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ecosystem is set up by the commands that operators use, step by step, with
// RSA keys. Each role is a process that the test starts and stops.
type ecosystem struct {
	*network
	dir   string
	roles map[string]*process
}

// process is one role.
type process struct {
	args    []string
	metrics string
	log     string
	cmd     *exec.Cmd
	ended   chan struct{}
}

const (
	caller = "RSA/COM/10/caller"
	callee = "RSA/COM/20/callee"
	echo   = "RSA/COM/20/callee/echo"
)

// Addresses of the ecosystem; none of the sandbox's.
const (
	ecoRegistry = "127.71.0.10"
	ecoTrust    = "127.71.0.13"
	ecoBackend  = "127.71.0.14:8000"
)

func ecoGateway(i int) string { return fmt.Sprintf("127.71.0.%d", 11+i) }

// newEcosystem follows the operators' path until all roles run.
func newEcosystem(t *testing.T) *ecosystem {
	t.Helper()
	binary(t, "kontor")
	dir := t.TempDir()
	e := &ecosystem{network: &network{Instance: "RSA", Anchor: filepath.Join(dir, "anchor.xml")}, dir: dir, roles: map[string]*process{}}
	path := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	needAddresses(t, ecoRegistry+":8080", ecoTrust+":8888", ecoGateway(0)+":8080", ecoGateway(1)+":8080", ecoBackend)
	t.Cleanup(func() { e.cleanup(t) })

	// 1. Trust services.
	e.Trust.Config = path("trust.yaml")
	e.Trust.OCSP, e.Trust.TSA = "http://"+ecoTrust+":8888/ocsp", "http://"+ecoTrust+":8888/tsa"
	e.Trust.CA, e.Trust.TSACert = path("trust", "ca.pem"), path("trust", "tsa.pem")
	write(t, e.Trust.Config, fmt.Appendf(nil, `data_dir: %s
passphrase_file: %s
url: http://%s:8888
listen: {http: "%[3]s:8888", metrics: "%[3]s:9102"}
`, path("trust"), path("secrets", "trust"), ecoTrust))
	kontor(t, 0, "trust", "config", "check", "--config", e.Trust.Config)
	r := kontor(t, 1, "trust", "run", "--config", e.Trust.Config)
	hint(t, r, "init")
	kontor(t, 0, "trust", "init", "--config", e.Trust.Config, "--instance", "RSA", "--name", "RSA CA", "--algorithm", "RSA-2048")
	kontor(t, 1, "trust", "init", "--config", e.Trust.Config, "--instance", "RSA") // keys are never overwritten
	r = kontor(t, 1, "trust", "list", "--config", e.Trust.Config)
	hint(t, r, "kontor trust run does not answer")
	e.define("trust", e.Trust.Config, "http://"+ecoTrust+":9102/metrics")
	e.start(t, "trust")

	// 2. Gateways: keys, certificates, services.
	for i, member := range []string{"10", "20"} {
		name, ip := fmt.Sprintf("gateway-%d", i+1), ecoGateway(i)
		g := gateway{
			Server: "RSA/COM/" + member + "/ss" + member, Consumer: "http://" + ip + ":8080", ConsumerTLS: "https://" + ip + ":8443",
			Peer: ip + ":5500", OCSP: "http://" + ip + ":5577", Admin: "https://" + ip + ":4000", Metrics: "http://" + ip + ":9100/metrics",
			Data: path(name), Config: path(name + ".yaml"),
		}
		e.Gateways = append(e.Gateways, g)
		write(t, g.Config, fmt.Appendf(nil, `server: %s
data_dir: %s
pin_file: %s
anchor: %s
address: %s
listen:
  consumer: "%[5]s:8080"
  consumer_tls: "%[5]s:8443"
  peer: "%[5]s:5500"
  ocsp: "%[5]s:5577"
  admin: "%[5]s:4000"
  metrics: "%[5]s:9100"
globalconf: {interval: 1s}
limits: {idle: 5s, answer: 5s}
message_log:
  stamp_interval: 200ms
  disk_reserve: 8MiB
`, g.Server, g.Data, path("secrets", name), e.Anchor, ip))
		r := kontor(t, 1, "gateway", "run", "--config", g.Config)
		hint(t, r, "run kontor gateway init first")
		kontor(t, 0, "gateway", "init", "--config", g.Config, "--algorithm", "RSA-2048", "--profile", "FiVRK",
			"--member-name", "Member "+member, "--dns-name", name+".example", "--country", "FI")
		kontor(t, 1, "gateway", "init", "--config", g.Config, "--country", "FI", "--member-name", "x", "--dns-name", "y")
		auth, sign := path("certificates", name+".auth.pem"), path("certificates", name+".sign.pem")
		if err := os.MkdirAll(path("certificates"), 0o755); err != nil {
			t.Fatal(err)
		}
		for usage, files := range map[string][2]string{"authentication": {"auth.csr.pem", auth}, "signing": {"sign.csr.pem", sign}} {
			kontor(t, 0, "trust", "issue", "--config", e.Trust.Config, "--usage", usage, "--csr", filepath.Join(g.Data, files[0]), "--out", files[1])
		}
		r = kontor(t, 1, "gateway", "import", "--config", g.Config, e.Trust.CA) // a certificate of no key of ours
		hint(t, r, "certificate")
		kontor(t, 0, "gateway", "import", "--config", g.Config, auth, sign)
	}
	write(t, filepath.Join(e.Gateways[0].Data, "serverconf.yaml"), fmt.Appendf(nil, `clients:
  - {id: %s, status: registered, connection: http}
`, caller))
	write(t, filepath.Join(e.Gateways[1].Data, "serverconf.yaml"), fmt.Appendf(nil, `clients:
  - id: %s
    status: registered
    connection: http
    services: [{code: echo, type: REST, url: "http://%s"}]
    access: [{service: echo, client: %s}]
`, callee, ecoBackend, caller))

	// 3. The registry.
	e.Registry.URL, e.Registry.Config = "http://"+ecoRegistry+":8080", path("registry.yaml")
	write(t, e.Registry.Config, fmt.Appendf(nil, `instance: RSA
data_dir: %s
pin_file: %s
address: "%s:8080"
publish_interval: 1s
listen:
  http: "%[3]s:8080"
  management: "%[3]s:4001"
  management_internal: "%[3]s:4002"
  admin: "%[3]s:4000"
  metrics: "%[3]s:9101"
`, path("registry"), path("secrets", "registry"), ecoRegistry))
	write(t, path("ecosystem.yaml"), fmt.Appendf(nil, `instance: RSA
memberClasses: [{code: COM, description: Companies}]
members:
  - {class: COM, code: "10", name: Ten Ltd, subsystems: [{code: caller}]}
  - {class: COM, code: "20", name: Twenty Ltd, subsystems: [{code: callee}]}
securityServers:
  - {id: RSA/COM/10/ss10, address: %s, certificates: [certificates/gateway-1.auth.pem], clients: [%s]}
  - {id: RSA/COM/20/ss20, address: %s, certificates: [certificates/gateway-2.auth.pem], clients: [%s]}
certificationServices:
  - name: RSA CA
    profile: FiVRK
    certificate: trust/ca.pem
    ocsp: [{url: "%s", certificate: trust/ocsp.pem}]
timestampingAuthorities: [{name: RSA TSA, url: "%s", certificate: trust/tsa.pem}]
settings: {managementProvider: RSA/COM/10/caller}
`, ecoGateway(0), caller, ecoGateway(1), callee, e.Trust.OCSP, e.Trust.TSA))
	kontor(t, 0, "registry", "config", "check", "--config", e.Registry.Config)
	kontor(t, 0, "registry", "init", "--config", e.Registry.Config)
	kontor(t, 1, "registry", "init", "--config", e.Registry.Config)
	e.Registry.Metrics = "http://" + ecoRegistry + ":9101/metrics"
	e.define("registry", e.Registry.Config, e.Registry.Metrics)
	e.launch(t, "registry") // with nothing declared there is nothing to publish
	eventually(t, "administration of the registry", func() error {
		if r := command(t, binary(t, "kontor"), "registry", "plan", path("ecosystem.yaml"), "--config", e.Registry.Config); r.status != 0 || !strings.Contains(r.out, "callee") {
			return errors.New(r.String())
		}
		return nil
	})
	kontor(t, 0, "registry", "apply", path("ecosystem.yaml"), "--yes", "--why", "a test", "--config", e.Registry.Config)
	eventually(t, "registry", func() error { return ready(e.Registry.Metrics) })
	write(t, e.Anchor, []byte(kontor(t, 0, "registry", "anchor", "--config", e.Registry.Config).out))

	// 4. The service, and all together.
	e.backend(t)
	for i, g := range e.Gateways {
		e.define(gatewayRole(i), g.Config, g.Metrics)
		e.start(t, gatewayRole(i))
	}
	return e
}

func gatewayRole(i int) string { return "gateway-" + strconv.Itoa(i+1) }

// hint demands that a refusal tells what to do.
func hint(t testing.TB, r result, want string) {
	t.Helper()
	if !strings.Contains(r.err, want) {
		t.Errorf("no %q in the refusal: %s", want, r)
	}
}

// backend is the information system behind the second gateway.
func (e *ecosystem) backend(t *testing.T) {
	l, err := net.Listen("tcp", ecoBackend)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %d:", r.Method, len(b))
		w.Write(b)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

func (e *ecosystem) define(name, config, metrics string) {
	role, _, _ := strings.Cut(name, "-")
	e.roles[name] = &process{args: []string{role, "run", "--config", config}, metrics: metrics, log: filepath.Join(e.dir, name+".log")}
}

// launch starts a role.
func (e *ecosystem) launch(t testing.TB, name string) *process {
	t.Helper()
	p := e.roles[name]
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(binary(t, "kontor"), p.args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	p.ended = ended
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // the state tells
		close(ended)
	}(p.cmd)
	return p
}

// start starts a role and waits until it is ready.
func (e *ecosystem) start(t testing.TB, name string) {
	t.Helper()
	p := e.launch(t, name)
	eventually(t, name, func() error {
		select {
		case <-p.ended:
			t.Fatalf("%s ended: %v\n%s", name, p.cmd.ProcessState, tail(p.log))
		default:
		}
		return ready(p.metrics)
	})
}

// stop stops a role as a service manager does and demands a clean end.
func (e *ecosystem) stop(t testing.TB, name string) {
	t.Helper()
	e.signal(t, name, syscall.SIGTERM)
	p := e.roles[name]
	eventually(t, "end of "+name, func() error {
		select {
		case <-p.ended:
			return nil
		default:
			return fmt.Errorf("process %d runs on", p.cmd.Process.Pid)
		}
	})
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ended with %v:\n%s", name, p.cmd.ProcessState, tail(p.log))
	}
}

func (e *ecosystem) restart(t testing.TB, name string) {
	t.Helper()
	e.stop(t, name)
	e.start(t, name)
}

func (e *ecosystem) signal(t testing.TB, name string, s syscall.Signal) {
	t.Helper()
	if err := e.roles[name].cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func (e *ecosystem) cleanup(t testing.TB) {
	for name, p := range e.roles {
		if p.cmd != nil {
			_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have ended
			_ = p.cmd.Process.Kill()                  // the same
			<-p.ended
		}
		if t.Failed() {
			t.Logf("%s:\n%s", name, tail(p.log))
		}
	}
}

// checkStopped stops both gateways and reads their logs in full.
func (e *ecosystem) checkStopped(t testing.TB) {
	t.Helper()
	for i, g := range e.Gateways {
		e.stop(t, gatewayRole(i))
		checkLog(t, g)
	}
}
