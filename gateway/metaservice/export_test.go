// SPDX-License-Identifier: Apache-2.0

package metaservice

import "context"

// What the tests of this package may call.
var (
	HideServersJSON = hideServersJSON
	HideServersYAML = hideServersYAML
	HideAddresses   = hideAddresses
)

const (
	MaxHeld    = maxHeld
	MaxPerHost = maxPerHost
	FetchTime  = fetchTime
)

// NewTurns returns a function that calls get when there is a place for a
// document of a server. The document is in memory until done is called.
func NewTurns(late error) func(ctx context.Context, server string, get func(context.Context) error) (done func(), err error) {
	d := newDocuments()
	return func(ctx context.Context, server string, get func(context.Context) error) (func(), error) {
		_, done, err := inTurn(ctx, d, server, func(ctx context.Context) (struct{}, error) { return struct{}{}, get(ctx) }, func() error { return late })
		d.hosts.mu.Lock()
		defer d.hosts.mu.Unlock()
		if len(d.hosts.by) > MaxHeld {
			panic("servers are not forgotten")
		}
		return done, err
	}
}
