// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds on downloads that hold several containers.
const (
	maxBundled     = 10_000
	maxBundledSize = 16 << 30 // of one container
)

// VerifyFile judges a file: a container, or an archive of containers as a
// security server's document download returns them. The error is about reading
// the file; whatever is wrong with its content is in the reports.
func VerifyFile(path string, trust Trust, o Options) ([]*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	bundle := bundled(f, info.Size())
	if bundle == nil {
		r := VerifyReader(f, info.Size(), trust, o)
		r.File = path
		return []*Report{r}, nil
	}
	var reports []*Report
	for _, entry := range bundle {
		r, err := verifyBundled(entry, trust, o)
		if err != nil {
			r = new(Report)
			r.check(CheckContainer, fmt.Errorf("%w: %w", ErrContainer, err), "")
		}
		r.File = path + ": " + entry.Name
		reports = append(reports, r)
	}
	return reports, nil
}

// bundled returns the containers in an archive that holds nothing else, nil if
// it is something else.
func bundled(r io.ReaderAt, size int64) []*zip.File {
	z, err := zip.NewReader(r, size)
	if err != nil || len(z.File) == 0 || len(z.File) > maxBundled {
		return nil
	}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".asice") {
			return nil
		}
	}
	return z.File
}

// verifyBundled unpacks a container into a temporary file and judges it. Its
// name is only printed.
func verifyBundled(entry *zip.File, trust Trust, o Options) (_ *Report, err error) {
	in, err := entry.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	tmp, err := os.CreateTemp("", "kontor-verify-*.asice")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	n, err := io.Copy(tmp, io.LimitReader(in, maxBundledSize+1))
	if err != nil {
		return nil, err
	}
	if n > maxBundledSize {
		return nil, fmt.Errorf("larger than %d bytes", int64(maxBundledSize))
	}
	return VerifyReader(tmp, n, trust, o), nil
}
