// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPython has clients in Python, zeep and requests, ask for metadata and call
// a SOAP service with attachments and by MTOM.
func TestPython(t *testing.T) {
	python := ""
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, err := exec.LookPath(name); err == nil && exec.Command(path, "-c", "import zeep").Run() == nil {
			python = path
			break
		}
	}
	if python == "" {
		t.Skip("zeep for Python is not installed; .ci/run installs it (python3-zeep)")
	}
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir)
	stranger(t, python, filepath.Join("testdata", "soap_client.py"), s.Gateways[0].Consumer+"/", filepath.Join("testdata", "metaservices.wsdl"), t.TempDir())
	s.stop(t)
}
