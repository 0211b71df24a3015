// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bytes"
	"log"
	"sync"
	"time"

	"go.uber.org/zap"
)

// quietTime is how long at least one line about connections that came to nothing
// speaks for those behind it: anybody on the internet can make them.
const quietTime = 10 * time.Second

// serverLog is what a server of net/http has to say: a handler that panics,
// always; connections that came to nothing, now and then and with their number.
type serverLog struct {
	log *zap.Logger
	now func() time.Time

	mu      sync.Mutex
	last    time.Time
	skipped int
}

// serverLogger returns a logger for http.Server.ErrorLog.
func serverLogger(l *zap.Logger) *log.Logger {
	return log.New(&serverLog{log: l, now: time.Now}, "", 0)
}

// Write takes one message.
func (s *serverLog) Write(p []byte) (int, error) {
	text := string(bytes.TrimSpace(p))
	if bytes.HasPrefix(p, []byte("http: panic ")) {
		s.log.Error(text)
		return len(p), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if since := now.Sub(s.last); !s.last.IsZero() && since >= 0 && since < quietTime {
		s.skipped++
		return len(p), nil
	}
	var fields []zap.Field
	if s.skipped > 0 {
		fields = append(fields, zap.Int("not_shown_before", s.skipped))
	}
	s.last, s.skipped = now, 0
	s.log.Warn(text, fields...)
	return len(p), nil
}
