// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
)

func newLog() *cobra.Command {
	var gw gatewayFlags
	var s admin.Selection
	var from, to string
	selection := func(c *cobra.Command) *cobra.Command {
		f := c.Flags()
		gw.flags(c)
		f.StringVar(&s.MessageID, "id", "", "message id (x-road-id)")
		f.StringVar(&from, "from", "", "not before: RFC 3339 time, date, or a duration ago such as 2h")
		f.StringVar(&to, "to", "", "before: RFC 3339 time, date, or a duration ago")
		f.StringVar(&s.Client, "client", "", "client: instance/class/member/subsystem")
		f.StringVar(&s.Service, "service", "", "service: instance/class/member/subsystem/service")
		f.StringVar(&s.Side, "side", "", "role of this gateway: client or server")
		f.StringVar(&s.Direction, "direction", "", "request or response")
		f.IntVar(&s.Limit, "limit", 0, "at most so many records")
		f.BoolVar(&s.Newest, "newest", false, "newest first")
		return c
	}
	// open reads the times of the selection and connects to the gateway.
	open := func() (*admin.Client, error) {
		for _, t := range []struct {
			name, text string
			to         *time.Time
		}{{"from", from, &s.From}, {"to", to, &s.To}} {
			var err error
			if *t.to, err = parseTime(t.text); err != nil {
				return nil, usageError{fmt.Errorf("--%s: %w", t.name, err)}
			}
		}
		return gw.client()
	}

	var output string
	find := selection(&cobra.Command{
		Use: "find", Short: "Find messages in a gateway's log",
		Example: "  kontor log find --from 1h --client SANDBOX/GOV/1001/portal",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := open()
			if err != nil {
				return err
			}
			records, err := api.Find(c.Context(), s)
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, records,
				[]string{"RECORD", "TIME", "SIDE", "DIRECTION", "CLIENT", "SERVICE", "MESSAGE ID", "STAMPED"}, func(r admin.Record) []string {
					return []string{strconv.FormatUint(r.Seq, 10), r.Time.Local().Format(time.DateTime), r.Side, r.Direction, r.Client, r.Service, r.MessageID,
						map[bool]string{true: "yes", false: "not yet"}[r.Stamped]}
				})
		},
	})
	outputFlag(find, &output)

	var out string
	var force bool
	export := selection(&cobra.Command{
		Use: "export", Short: "Export messages as ASiC-E containers, in a zip",
		Example: "  kontor log export --id MESSAGE-ID --out evidence.zip && kontor verify evidence.zip --conf …",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := open()
			if err != nil {
				return err
			}
			if out == "-" {
				return api.Export(c.Context(), s, force, c.OutOrStdout())
			}
			if err := writeWhole(out, func(w io.Writer) error { return api.Export(c.Context(), s, force, w) }); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "Wrote "+out)
			return nil
		},
	})
	export.Flags().StringVar(&out, "out", "messagelog.zip", "file to write; - is standard output")
	export.Flags().BoolVar(&force, "force", false, "obtain missing time-stamps first")
	return group("log", "The message log of a gateway", find, export)
}

// parseTime reads a time, a date or a duration before now.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; use 2006-01-02T15:04:05Z, 2006-01-02 or a duration such as 2h", s)
}

// writeWhole writes a file that is either complete or not there.
func writeWhole(file string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".kontor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
