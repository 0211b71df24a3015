// SPDX-License-Identifier: Apache-2.0

package admin

// Follow keeps states in step with the newest global configuration, once.
func (a *API) Follow() { a.follow(a.View()) }

var (
	CertificateState = certificateState
	ClientStatus     = clientStatus
)

// StrangersAtOnce is how many callers without a key have audit records at once.
const StrangersAtOnce = strangersAtOnce
