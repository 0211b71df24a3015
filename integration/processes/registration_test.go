// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestSandboxRegistersClient sends a management request through the gateway of
// another organisation, has it approved, and exchanges a first message.
func TestSandboxRegistersClient(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir)
	const fresh = "SANDBOX/GOV/2002/fresh"
	registry, here, there := "--config="+filepath.Join(dir, "registry.yaml"), "--config="+filepath.Join(dir, "gateway-2.yaml"), "--config="+filepath.Join(dir, "gateway-1.yaml")
	kontor(t, 0, "client", "add", fresh, "--connection", "http", here)
	kontor(t, 0, "access", "grant", messages, fresh, there)
	if r := kontor(t, 0, "client", "register", fresh, "--name", "Fresh", here); !strings.Contains(r.out, "registration in progress") {
		t.Error(r)
	}
	kontor(t, 0, "request", "approve", "1", registry)
	eventually(t, "registration", func() error {
		if r := kontor(t, 0, "client", "show", fresh, here, "--output", "json"); !strings.Contains(r.out, `"status": "registered"`) {
			return errors.New(r.out)
		}
		return nil
	})
	hello := request{1, "POST", fresh, messages, "", []byte(`{"text":"hello"}`)}
	eventually(t, "first exchange", func() error {
		if resp := s.call(t, hello); resp.fault != "" {
			return fmt.Errorf("%d: %s", resp.status, resp.body)
		}
		return nil
	})
	s.succeed(t, hello)
	kontor(t, 0, "client", "disable", fresh, here, "--yes")
	eventually(t, "end of its calls", func() error {
		if resp := s.call(t, hello); resp.fault == "" {
			return errors.New("it may still call")
		}
		return nil
	})
	s.stop(t)
}
