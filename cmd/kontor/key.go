// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
	"kontor/pki"
)

func newKey() *cobra.Command {
	var gw gatewayFlags
	var output string
	list := &cobra.Command{
		Use: "list", Short: "List keys, what state they are in and what to do next", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			keys, err := api.Keys(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, keys, []string{"KEY", "LABEL", "USAGE", "ALGORITHM", "CERTIFICATES", "USABLE", "NEXT"}, func(k admin.Key) []string {
				next := k.Next
				for _, cert := range k.Certificates {
					if next == "" && !k.Usable {
						next = cert.Next
					}
				}
				return []string{k.ID, k.Label, string(k.Usage), string(k.Algorithm), strconv.Itoa(len(k.Certificates)), yesNo(k.Usable), next}
			})
		}),
	}

	var n admin.NewKey
	var usage, algorithm string
	generate := &cobra.Command{
		Use: "generate", Short: "Generate a key", Args: args(cobra.NoArgs),
		Example: "  kontor key generate --usage authentication --label \"2027\"",
		RunE: func(c *cobra.Command, _ []string) error {
			use, err := pki.ParseUsage(usage)
			if err != nil {
				return usageError{err}
			}
			alg, err := pki.ParseAlgorithm(algorithm)
			if err != nil {
				return usageError{err}
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			n.Usage, n.Algorithm = use, alg
			k, err := api.GenerateKey(c.Context(), n)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, k, keyLines)
		},
	}
	generate.Flags().StringVar(&usage, "usage", "", "authentication (of this gateway) or signing (of messages)")
	generate.Flags().StringVar(&n.Label, "label", "", "name for people")
	generate.Flags().StringVar(&algorithm, "algorithm", string(pki.P256), "EC-P256, EC-P384, RSA-2048, RSA-3072 or RSA-4096")
	_ = generate.MarkFlagRequired("usage") // the flag exists
	_ = generate.RegisterFlagCompletionFunc("usage", cobra.FixedCompletions([]string{"authentication", "signing"}, cobra.ShellCompDirectiveNoFileComp))

	var yes bool
	remove := &cobra.Command{
		Use: "delete KEY", Short: "Delete a key and its certificates, irrevocably", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			k, etag, err := api.Key(c.Context(), a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete the %s key %s %q with %d certificates, irrevocably", k.Usage, k.ID, k.Label, len(k.Certificates)); err != nil {
				return err
			}
			if err := api.DeleteKey(c.Context(), k.ID, etag); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Deleted key %s.\n", k.ID)
			return nil
		}),
	}
	yesFlag(remove, &yes)
	gw.suggest(remove, suggestKeys)
	for _, c := range []*cobra.Command{list, generate, remove} {
		gw.flags(c)
	}
	outputFlag(list, &output)
	outputFlag(generate, &output)
	return group("key", "Keys of a gateway", list, generate, remove)
}

func keyLines(k admin.Key) [][2]string {
	return [][2]string{{"Key", k.ID}, {"Label", k.Label}, {"Usage", string(k.Usage)}, {"Algorithm", string(k.Algorithm)}, {"Next", k.Next}}
}
