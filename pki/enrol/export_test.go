// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"time"

	"kontor/pki"
)

// SetPoll lets tests look at challenges more often.
func (r *Renewer) SetPoll(d time.Duration) { r.poll = d }

// SetGenerate lets tests use keys that are made already.
func (r *Renewer) SetGenerate(g func(string, pki.Usage, pki.Algorithm) (*pki.Key, error)) {
	r.generate = g
}

// SetGenerate lets tests use keys that are made already.
func (a *Accounts) SetGenerate(g func(string, pki.Usage, pki.Algorithm) (*pki.Key, error)) {
	a.generate = g
}

var CertID = certID
