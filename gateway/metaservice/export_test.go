// SPDX-License-Identifier: Apache-2.0

package metaservice

// What the tests of this package may call.
var (
	HideServersJSON = hideServersJSON
	HideServersYAML = hideServersYAML
	HideAddresses   = hideAddresses
)
