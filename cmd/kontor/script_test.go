// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kontor/integration/testnet"
)

func TestMain(m *testing.M) {
	testscript.Main(withNetworks{m}, map[string]func(){"kontor": main})
}

// withNetworks cleans up after tests that run a network.
type withNetworks struct{ *testing.M }

func (m withNetworks) Run() int { return testnet.Main(m.M) }

// TestScripts runs the commands as operators do.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exit1 and exit2 run a command that must end with that status.
			"exit1": func(ts *testscript.TestScript, _ bool, args []string) { exits(ts, exitFailed, args) },
			"exit2": func(ts *testscript.TestScript, _ bool, args []string) { exits(ts, exitUsage, args) },
			// healthy CONFIG waits until the registry has published.
			"healthy": func(ts *testscript.TestScript, _ bool, args []string) {
				for range 600 {
					if ts.Exec("kontor", "registry", "status", "--config", args[0]) == nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
				ts.Fatalf("the registry did not get healthy")
			},
			// registered CLIENT CONFIG waits until the gateway knows a client as registered.
			"registered": func(ts *testscript.TestScript, _ bool, args []string) {
				for range 600 {
					if ts.Exec("sh", "-c", "kontor client show "+args[0]+" --config "+args[1]+" | grep -q '^Status *registered'") == nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
				ts.Fatalf("%s did not get registered", args[0])
			},
			// until PATTERN COMMAND waits until what a shell command writes has a line that matches.
			"until": func(ts *testscript.TestScript, _ bool, args []string) {
				for range 600 {
					if ts.Exec("sh", "-c", args[1]+" | grep -Eq '"+args[0]+"'") == nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
				ts.Fatalf("%s: no %q", args[1], args[0])
			},
			// ready ADDRESS waits until something listens there.
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: ready ADDRESS")
				}
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
					c, err := net.DialTimeout("tcp", args[0], time.Second)
					if err == nil {
						c.Close()
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("%v", err)
					}
				}
			},
		},
	})
}

func exits(ts *testscript.TestScript, status int, args []string) {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status {
		ts.Fatalf("%v: %v, want status %d", args, err, status)
	}
}
