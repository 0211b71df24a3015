// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"kontor/cmd/roles"
	"kontor/config"
)

// TestLoggerOrder: a warning is in the file at once and after the lines before
// it, and no line stays away for good.
func TestLoggerOrder(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	log, err := roles.NewLogger(config.Logging{Level: "info", Format: "json"}, file)
	if err != nil {
		t.Fatal(err)
	}
	lines := func() []string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	log.Debug("no")
	log.Info("one")
	log.Named("x").With(zap.Int("n", 2)).Warn("two", zap.Duration("took", time.Second))
	got := lines()
	if len(got) != 2 || !strings.Contains(got[0], `"msg":"one"`) ||
		!strings.Contains(got[1], `"level":"warn"`) || !strings.Contains(got[1], `"logger":"x","msg":"two","n":2,"took":"1s"`) {
		t.Errorf("after a warning: %q", got)
	}
	log.Info("three")
	for deadline := time.Now().Add(time.Minute); len(lines()) != 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a line is never written")
		}
	}
	log.Info("four")
	if err := log.Sync(); err != nil || len(lines()) != 4 {
		t.Errorf("after Sync: %v, %q", err, lines())
	}
}
