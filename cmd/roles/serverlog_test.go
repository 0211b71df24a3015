// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestServerLog(t *testing.T) {
	core, seen := observer.New(zapcore.InfoLevel)
	now := time.Unix(1e9, 0)
	w := &serverLog{log: zap.New(core), now: func() time.Time { return now }}
	for i := range 5 {
		fmt.Fprintf(w, "http: TLS handshake error from 192.0.2.1:%d: no cipher suite supported\n", i)
	}
	fmt.Fprintln(w, "http: panic serving 192.0.2.1:9: oops")
	now = now.Add(quietTime)
	fmt.Fprintln(w, "http: TLS handshake error from 192.0.2.2:1: EOF")
	got := seen.AllUntimed()
	if len(got) != 3 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	if e := got[0]; e.Level != zapcore.WarnLevel || e.Message != "http: TLS handshake error from 192.0.2.1:0: no cipher suite supported" || len(e.Context) != 0 {
		t.Errorf("first line: %v", e)
	}
	if e := got[1]; e.Level != zapcore.ErrorLevel {
		t.Errorf("a panic: %v", e)
	}
	if e := got[2]; e.Level != zapcore.WarnLevel || e.ContextMap()["not_shown_before"] != int64(4) {
		t.Errorf("line behind those that were left out: %v", e)
	}
}
