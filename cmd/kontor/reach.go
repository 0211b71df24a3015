// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"kontor/cmd/roles"
)

// loadConfig reads the configuration file of a role, whose command is kontor
// and role, and says where one comes from if there is none.
func loadConfig[T any](read func(file string) (T, error), file, role string) (T, error) {
	cfg, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		example := role[strings.LastIndexByte(role, ' ')+1:] + ".yaml"
		err = fmt.Errorf("%w; name the file with --config. For a new one start from the commented example deploy/%s, then run: kontor %s init --config %s",
			err, example, role, file)
	}
	return cfg, err
}

// apiAccess is how a command proves itself to an administration API and knows
// it again.
type apiAccess struct {
	role          string // what has the API: gateway or registry
	key, cert     string // files
	byFlags       bool   // they come from --key-file and --cert
	keyMade, mine string // command that makes keys, name of the certificate in data_dir
}

// read reads the API key and the certificate for the API at an address.
func (a apiAccess) read(url string) (key string, pin *x509.Certificate, err error) {
	if err := checkURL(url); a.byFlags && err != nil {
		return "", nil, err
	}
	secret, err := roles.Secret(a.key, "API key")
	if err != nil {
		return "", nil, a.explain(err, "--key-file", "the file with an API key; the "+a.role+"'s operator makes one: "+a.keyMade)
	}
	der, err := roles.ReadDER(a.cert, "CERTIFICATE")
	if err != nil {
		return "", nil, a.explain(err, "--cert", "a copy of "+a.mine+" from the data_dir of the "+a.role)
	}
	if pin, err = x509.ParseCertificate(der); err != nil {
		return "", nil, fmt.Errorf("%s: %w", a.cert, err)
	}
	return string(secret), pin, nil
}

// checkURL refuses what cannot be the address of an administration API.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return usageError{fmt.Errorf("--url %q is not an address such as https://10.0.0.1:4000", text)}
	}
	return nil
}

// explain says which file is meant and what to do about it.
func (a apiAccess) explain(err error, flag, what string) error {
	switch {
	case a.byFlags && (errors.Is(err, fs.ErrNotExist) || flag == "--cert"):
		return fmt.Errorf("%s: %w\nGive %s", flag, err, what)
	case a.byFlags:
		return fmt.Errorf("%s: %w", flag, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; has kontor %s init been run with this configuration?", err, a.role)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run this as the user of the %s, or give --url, --key-file and --cert", err, a.role)
	}
	return err
}
