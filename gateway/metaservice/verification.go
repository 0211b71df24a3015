// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"archive/zip"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"kontor/gateway/fault"
	"kontor/registry/globalconf"
)

// VerificationConf serves X-Road's "GET /verificationconf": the shared
// parameters of all visible instances in a zip, in the layout that X-Road's
// verifier of containers reads. spelling is that of codes of faults. The path is
// not examined.
func VerificationConf(view func() (*globalconf.View, error), spelling fault.Style) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := view()
		if err != nil {
			refuse(w, spelling, err)
			return
		}
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Disposition", `filename="verificationconf.zip"`)
		if err := writeVerificationConf(patientWriter{w}, v); err != nil {
			panic(http.ErrAbortHandler) // half a file must not look whole
		}
	})
}

func writeVerificationConf(out io.Writer, v *globalconf.View) error {
	const folder = "verificationconf/"
	z := zip.NewWriter(out)
	add := func(name string, content []byte) error {
		f, err := z.Create(folder + name)
		if err == nil {
			_, err = f.Write(content)
		}
		return err
	}
	for _, instance := range v.Instances() {
		raw, version, ok := v.SharedParams(instance)
		if !ok {
			continue
		}
		metadata, err := json.Marshal(struct {
			Version string `json:"configurationVersion"`
		}{strconv.Itoa(version)})
		if err != nil {
			return err
		}
		file := instance + "/shared-params.xml"
		if err := add(file, raw); err != nil {
			return err
		}
		if err := add(file+".metadata", metadata); err != nil {
			return err
		}
	}
	if err := add("instance-identifier", []byte(v.Instance())); err != nil {
		return err
	}
	return z.Close()
}
