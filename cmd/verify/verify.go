// SPDX-License-Identifier: Apache-2.0

// Package verify is the auditor's command: it tells whether signed documents of
// an X-Road ecosystem are genuine, who sent what to whom, and when. It needs the
// documents and the global configuration, and no network unless asked for it.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"kontor/pki/asic"
	"kontor/registry/globalconf"
)

// Exit statuses.
const (
	exitValid = iota
	exitInvalid
	exitUsage
)

// errInvalid ends the command after the reports have told why.
var errInvalid = errors.New("invalid")

// failure is an error that is not about how the command was called.
type failure struct{ error }

// Run executes the command as the program of that name and returns its exit
// status: 0 all documents are valid, 1 some are not, 2 wrong usage.
func Run(ctx context.Context, name string, args []string, out, errs io.Writer) int {
	c := newCommand(name)
	c.SetArgs(args)
	c.SetOut(out)
	c.SetErr(errs)
	err := c.ExecuteContext(ctx)
	if err == nil {
		return exitValid
	}
	if errors.Is(err, errInvalid) {
		return exitInvalid
	}
	fmt.Fprintf(errs, "%s: %v\n", name, err)
	var f failure
	if errors.As(err, &f) {
		return exitInvalid
	}
	fmt.Fprintf(errs, "Try %s --help.\n", name)
	return exitUsage
}

const help = `Judge signed documents: ASiC-E containers as security servers export them, or
the zip archives of several that they offer for download.

Everything is checked, at the time of the document's time-stamp: the container
and its manifests, that the message is signed as a whole, by a certificate of
the sender that was good then, and that an approved authority stamped it.

Whom to trust stands in the global configuration of the ecosystem:

  --conf DIR                 a configuration folder, or an unpacked
                             verificationconf.zip, trusted as it stands
  --anchor FILE --conf DIR   a folder that a Kontor gateway keeps; its signature
                             is verified offline with the anchor
  --anchor FILE              downloads the configuration once and verifies it

An expired configuration is used all the same: old evidence needs it.

Exit status: 0 all documents are valid, 1 some are not or could not be judged,
2 wrong usage.`

func newCommand(name string) *cobra.Command {
	var conf, anchor, output string
	c := &cobra.Command{
		Use:   name + " FILE.asice… (--conf DIR | --anchor ANCHOR.xml [--conf DIR])",
		Short: "judge signed documents offline",
		Long:  help,
		Example: "  " + name + ` request.asice response.asice --conf verificationconf
  ` + name + ` documents.zip --anchor anchor.xml --conf /var/lib/kontor/globalconf
  ` + name + ` documents.zip --anchor anchor.xml --output json`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which documents? Name at least one file")
			}
			return nil
		},
		RunE: func(c *cobra.Command, files []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("unknown output %q; use table or json", output)
			}
			trust, err := load(c.Context(), conf, anchor)
			if err != nil {
				return err
			}
			for _, p := range trust.problems {
				fmt.Fprintf(c.ErrOrStderr(), name+": part of the global configuration is left out: %v\n", p)
			}
			return verify(c.OutOrStdout(), files, trust, output)
		},
	}
	c.Flags().StringVar(&conf, "conf", "", "folder with the global configuration")
	c.Flags().StringVar(&anchor, "anchor", "", "configuration anchor that the configuration is verified with")
	c.Flags().StringVar(&output, "output", "table", "table for people, json for scripts")
	return c
}

// trusted is a global configuration.
type trusted struct {
	view     *globalconf.View
	source   string  // where it comes from and how far it is proven, in words
	problems []error // parts that are left out
}

func load(ctx context.Context, conf, anchor string) (*trusted, error) {
	if anchor == "" {
		if conf == "" {
			return nil, errors.New("whom to trust? Give --conf DIR, --anchor FILE or both")
		}
		view, err := globalconf.LoadDir(conf)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; --conf wants the folder with the global configuration: globalconf in the data_dir of a gateway, or verificationconf of its /verificationconf", err)
		}
		if err != nil {
			return nil, failure{err}
		}
		return &trusted{view, fmt.Sprintf("%s in %s, trusted as it stands", view.Instance(), conf), view.Problems()}, nil
	}
	doc, err := os.ReadFile(anchor)
	if err != nil {
		return nil, failure{err}
	}
	if conf == "" {
		return download(ctx, doc, anchor)
	}
	view, err := globalconf.LoadSignedDir(conf, doc)
	if err != nil {
		return nil, failure{fmt.Errorf("the configuration in %s does not verify with the anchor: %w", conf, err)}
	}
	return &trusted{view, fmt.Sprintf("%s in %s, verified with the anchor %s", view.Instance(), conf, anchor), view.Problems()}, nil
}

// download gets the configuration once, into memory.
func download(ctx context.Context, doc []byte, anchor string) (*trusted, error) {
	var first error
	for _, external := range []bool{false, true} {
		client, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: doc, External: external, AllowedFederations: []string{"all"}})
		if err != nil {
			return nil, failure{err}
		}
		if err = client.Update(ctx); err == nil {
			view, stats := client.View(), client.Stats()
			problems := view.Problems()
			for _, err := range stats.Federated {
				if err != nil {
					problems = append(problems, err)
				}
			}
			return &trusted{view, fmt.Sprintf("%s downloaded from %s, verified with the anchor %s",
				view.Instance(), stats.Location, anchor), problems}, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, globalconf.ErrMissingPart) {
			break // else the anchor may be that of an external source
		}
	}
	return nil, failure{fmt.Errorf("download the global configuration: %w", first)}
}

// verify judges the files and prints the reports.
func verify(out io.Writer, files []string, trust *trusted, output string) error {
	var reports []*asic.Report
	for _, file := range files {
		r, err := asic.VerifyFile(file, trust.view, asic.Options{ClientName: trust.view.Name})
		if err != nil {
			return failure{err}
		}
		reports = append(reports, r...)
	}
	results := asic.NewResults(trust.source, reports)
	print := results.Print
	if output == "json" {
		print = results.PrintJSON
	}
	if err := print(out); err != nil {
		return failure{err}
	}
	if !results.Valid {
		return errInvalid
	}
	return nil
}
