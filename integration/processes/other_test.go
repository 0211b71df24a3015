// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package processes_test

import "testing"

func TestProcesses(t *testing.T) {
	t.Skip("these tests need Linux: loopback addresses beyond 127.0.0.1, signals and /proc")
}
