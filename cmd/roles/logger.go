// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"kontor/config"
)

const (
	// logDelay is how long a line that is no warning may wait for company: one
	// write per exchange would cost more than making the line.
	logDelay  = 200 * time.Millisecond
	logBuffer = 64 << 10
)

// NewLogger returns the logger of a role, to files or else standard error.
// Nothing is sampled away: one line per exchange is a promise. Lines of level
// info and below may be written logDelay later; Sync writes what waits.
func NewLogger(c config.Logging, files ...string) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		files = []string{"stderr"}
	}
	sink, _, err := zap.Open(files...)
	if err != nil {
		return nil, err
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if c.Format == "console" {
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	buffer := &zapcore.BufferedWriteSyncer{WS: unsynced{sink}, Size: logBuffer, FlushInterval: logDelay}
	return zap.New(&promptCore{zapcore.NewCore(encoder, buffer, level)}, zap.ErrorOutput(sink)), nil
}

// unsynced is written to but not forced to the disk: these lines are no
// evidence, and a flush would wait behind the message log's.
type unsynced struct{ zapcore.WriteSyncer }

func (unsynced) Sync() error { return nil }

// promptCore writes warnings and errors at once, with all lines before them.
type promptCore struct{ zapcore.Core }

func (c *promptCore) With(fields []zapcore.Field) zapcore.Core {
	return &promptCore{c.Core.With(fields)}
}

func (c *promptCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *promptCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	err := c.Core.Write(e, fields)
	if e.Level >= zapcore.WarnLevel {
		err = errors.Join(err, c.Sync())
	}
	return err
}
