// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
)

// backupCommands returns the commands backup and restore of a role. load reads
// the configuration file and says what belongs to the role.
func backupCommands(role string, load func(file string) (*roles.BackupSet, error)) []*cobra.Command {
	var file, passFile string
	flags := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/"+role+".yaml", "configuration file")
		c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the passphrase that seals the backup; only its owner may read it")
		_ = c.MarkFlagRequired("passphrase-file") // the flag exists
		return c
	}

	var out string
	backup := flags(&cobra.Command{
		Use: "backup", Short: "Write keys, data and configuration to one sealed file, while the " + role + " is stopped",
		Long: `Write the data directory, the configuration file and the secret that opens the
keys to one archive, encrypted and authenticated with a passphrase. The
passphrase is all that protects it, and without it the backup is worthless:
keep it elsewhere.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := load(file)
			if err != nil {
				return err
			}
			if err := roles.Backup(set, out, passFile, time.Now); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Wrote the backup of %s to %s.\nRestore it with: kontor %s restore --in %s --passphrase-file FILE\n", set.ID, out, role, out)
			return nil
		},
	})
	backup.Flags().StringVar(&out, "out", "", "file to write")
	_ = backup.MarkFlagRequired("out")

	var in string
	restore := flags(&cobra.Command{
		Use: "restore", Short: "Restore a backup on a machine that has no data of the " + role + " yet",
		Long: `Restore a backup into an empty data directory. The configuration file decides
where that is; if there is none, it is restored, too. Nothing is restored of an
archive that was damaged or changed.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			contents, done, err := roles.OpenBackup(in, passFile, role)
			if err != nil {
				return err
			}
			defer done()
			_, err = os.Stat(file)
			blank := errors.Is(err, fs.ErrNotExist)
			if blank {
				if err := roles.WriteNew(file, contents.Files[roles.BackupConfig]); err != nil {
					return err
				}
			}
			set, err := load(file)
			if err == nil {
				err = roles.Restore(contents, set)
			}
			if err != nil {
				if blank {
					err = errors.Join(err, os.Remove(file))
				}
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Restored %s, as of %s, into %s.\nNext: kontor %s run --config %s\n",
				set.ID, contents.Manifest.Created.Format(time.RFC3339), set.DataDir, role, file)
			return nil
		},
	})
	restore.Flags().StringVar(&in, "in", "", "the backup")
	_ = restore.MarkFlagRequired("in")
	return []*cobra.Command{backup, restore}
}
