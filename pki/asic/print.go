// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"kontor/registry/id"
)

// Print writes the report for people: who sent what to whom and when, every
// check, and the verdict in the last line.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	if r.File != "" {
		line("file", "%s", r.File)
	}
	if !r.Sender.IsZero() {
		line("message", "%s %s", r.Protocol, r.Direction)
		client, owner := named(r.Client, r.ClientName), named(r.Owner, r.OwnerName)
		if r.Direction == "response" {
			line("from", "%s", owner)
			line("to", "%s", client)
		} else {
			line("from", "%s", client)
			line("to", "%s", owner)
		}
		line("service", "%s", r.Service)
	}
	if r.MessageID != "" {
		line("message id", "%s", r.MessageID)
	}
	if r.RequestID != "" {
		line("request id", "%s", r.RequestID)
	}
	if !r.Stamped.IsZero() {
		line("time-stamped", "%s by %s", r.Stamped.UTC().Format(time.RFC3339), r.TSA)
	}
	if !r.Signed.IsZero() {
		line("signed", "%s, as the signer says", r.Signed.UTC().Format(time.RFC3339))
	}
	if c := r.Certificate; c != nil {
		line("certificate", "%s", c.Subject)
		line("", "issued by %s, serial number %s", c.Issuer, c.Serial)
	}
	if !r.Judged.IsZero() && r.Stamped.IsZero() {
		line("judged for", "%s, for want of a time-stamp", r.Judged.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(t)
	for _, c := range r.Checks {
		mark, text := "✓", c.Detail
		if !c.OK {
			mark, text = "✗", c.Err
		}
		line(mark+" "+c.Name, "%s", text)
	}
	for _, u := range r.Unverified {
		line("! "+u.Part, "is signed but not in this container; compare its digest %s", u.Digest)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	switch {
	case r.Valid && len(r.Unverified) > 0:
		var absent []string
		for _, u := range r.Unverified {
			absent = append(absent, u.Part)
		}
		fmt.Fprintf(&b, "\nVALID, except for parts that are not in the container: %s\n", strings.Join(absent, ", "))
	case r.Valid:
		b.WriteString("\nVALID\n")
	default:
		var broken []string
		for _, c := range r.Failed() {
			if len(broken) == 0 || broken[len(broken)-1] != c.Name {
				broken = append(broken, c.Name)
			}
		}
		fmt.Fprintf(&b, "\nINVALID: %s\n", strings.Join(broken, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func named(c id.Client, name string) string {
	if name == "" {
		return c.String()
	}
	return fmt.Sprintf("%s (%s)", c, name)
}

// printable keeps what comes from a container from moving a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// Results are the reports on all containers that a command was given.
type Results struct {
	Valid bool `json:"valid"` // all of them are
	// Configuration says in words where the global configuration comes from
	// and whether its signature was verified.
	Configuration string    `json:"configuration"`
	Reports       []*Report `json:"reports"`
}

// NewResults collects reports. No report at all is not valid.
func NewResults(configuration string, reports []*Report) *Results {
	r := &Results{Valid: len(reports) > 0, Configuration: configuration, Reports: reports}
	for _, one := range reports {
		r.Valid = r.Valid && one.Valid
	}
	return r
}

// Print writes all reports for people; the last line is the verdict on all.
func (r *Results) Print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "global configuration: %s\n\n", printable(r.Configuration)); err != nil {
		return err
	}
	valid := 0
	for i, one := range r.Reports {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := one.Print(w); err != nil {
			return err
		}
		if one.Valid {
			valid++
		}
	}
	if len(r.Reports) == 1 {
		return nil
	}
	verdict := "VALID"
	if !r.Valid {
		verdict = "INVALID"
	}
	_, err := fmt.Fprintf(w, "\n%s: %d of %d containers are valid\n", verdict, valid, len(r.Reports))
	return err
}

// PrintJSON writes the results for scripts.
func (r *Results) PrintJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
