// SPDX-License-Identifier: Apache-2.0

package admin

import "context"

// Follow keeps states in step with the newest global configuration, once.
func (a *API) Follow() { a.follow(a.View()) }

// Inquire asks what became of the requests that wait, once.
func (a *API) Inquire(ctx context.Context) { a.inquire(ctx, 0) }

var (
	CertificateState = certificateState
	ClientStatus     = clientStatus
)

// StrangersAtOnce is how many callers without a key have audit records at once.
const StrangersAtOnce = strangersAtOnce
