// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package http1

import "net"

// watch cannot look at a connection without reading from it here: one that the
// server has closed shows when it is used.
type watch struct{}

func (w *watch) start(net.Conn) {}

func (w *watch) alive() bool { return true }
