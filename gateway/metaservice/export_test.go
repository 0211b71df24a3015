// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"net/http"

	"kontor/gateway"
)

// What the tests of this package may call.
var (
	HideServersJSON = hideServersJSON
	HideServersYAML = hideServersYAML
	HideAddresses   = hideAddresses
)

// MaxHeld is how many documents are in memory at once.
const MaxHeld = maxHeld

// Hold bounds how often serve runs at once.
func Hold(serve func(http.ResponseWriter, *http.Request, *gateway.Call) error) func(http.ResponseWriter, *http.Request, *gateway.Call) error {
	return newDocuments().hold(serve)
}
