// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
)

// Kinds of refusal, for errors.Is.
var (
	ErrInvalid = errors.New("invalid")      // the change itself is wrong
	ErrExists  = errors.New("exists")       // what it adds is there already
	ErrUnknown = errors.New("unknown")      // what it speaks of does not exist
	ErrInUse   = errors.New("still in use") // others need what it removes
)

// Refusal is the error for a change that is not acceptable. Nothing of the
// change set that it belongs to was applied.
type Refusal struct {
	Change Change
	Kind   error  // one of the kinds above
	Why    string // what is wrong
	Remedy string // what to do about it; may be empty
	Code   string // X-Road's code, of refused management requests; may be empty
}

func (r *Refusal) Error() string {
	if r.Remedy == "" {
		return fmt.Sprintf("%s: %s", r.Change, r.Why)
	}
	return fmt.Sprintf("%s: %s; %s", r.Change, r.Why, r.Remedy)
}

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

func refuse(c Change, kind error, why, remedy string) error {
	return &Refusal{Change: c, Kind: kind, Why: why, Remedy: remedy}
}
