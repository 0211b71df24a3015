// SPDX-License-Identifier: Apache-2.0

package management

import (
	_ "embed"
	"net/http"
	"strconv"
)

//go:embed managementservices.wsdl
var wsdl []byte

// WSDL serves the description of the services, from which a security server
// learns what it provides.
func WSDL(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/xml; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(wsdl)))
	_, _ = w.Write(wsdl) // the asker may have gone; to HEAD the server sends no body
}
