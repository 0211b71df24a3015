// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"
)

func TestFaultsDocumentIsUpToDate(t *testing.T) {
	have, err := os.ReadFile("../../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, document()) {
		t.Error("docs/faults.md differs from the table of codes: run go generate ./gateway/fault")
	}
}
