// SPDX-License-Identifier: Apache-2.0

package serverconf

import "slices"

// The codes of the services that a security server itself provides (X-Road:
// Service Metadata Protocol, sections 2 to 5; Service Metadata Protocol for
// REST; Operational Monitoring Protocol; Environmental Monitoring Messages).
const (
	ListMethods        = "listMethods"
	AllowedMethods     = "allowedMethods"
	GetWSDL            = "getWsdl"
	GetOpenAPI         = "getOpenAPI"
	GetOperationalData = "getSecurityServerOperationalData"
	GetHealthData      = "getSecurityServerHealthData"
	GetMetrics         = "getSecurityServerMetrics"
)

// Reserved tells whether a service code is that of a service which the security
// server itself provides. No client can have a service of that code.
func Reserved(code string) bool {
	return slices.Contains([]string{
		ListMethods, AllowedMethods, GetWSDL, GetOpenAPI, GetOperationalData, GetHealthData, GetMetrics,
	}, code)
}
