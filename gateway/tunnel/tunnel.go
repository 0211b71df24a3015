// SPDX-License-Identifier: Apache-2.0

// Package tunnel carries opaque messages between security servers: HTTP/1.1
// over mutual TLS on port 5500, with the OCSP responses of a server's
// authentication certificate on its port 5577 (X-Road Message Transport
// Protocol).
//
// Two of ours speak HTTP/3 over QUIC (RFC 9000, 9114) on the same port, also
// with TLS and certificates on both ends. A server says so in its answers over
// HTTPS (RFC 7838), the client makes a connection in the background and uses it
// as soon as it stands: no exchange waits for one that does not come about.
//
// A peer is who its authentication certificate says: the chain must lead to an
// approved authority, OCSP must say "good", and the global configuration must
// register the certificate for a security server of the client in question.
// Neither host names nor the rest of the web's certificates play a part. The
// [Client] verifies its peer before the first byte of a request leaves, anew
// for each request; a server verifies its peers with [PeerVerifier] once it has
// their OCSP responses, which come with the message. Over QUIC each end staples
// the response about its own certificate, too, and a server lets nobody past
// the handshake without.
package tunnel

import (
	"errors"
	"fmt"
	"time"
)

// Ports of every security server.
const (
	Port     = 5500 // messages
	OCSPPort = 5577 // OCSP responses of the authentication certificate
)

// Errors that callers test with errors.Is. One error may be several of them:
// that of Post lists what every candidate did.
var (
	// ErrPeer: a peer's certificate does not prove that it may act for the
	// client in question.
	ErrPeer = errors.New("security server not authenticated")
	// ErrConnect: no connection to a security server could be made. No byte of
	// the request was sent.
	ErrConnect = errors.New("no connection to the security server")
	// ErrTimeout: the deadline passed, or the peer was silent for too long.
	ErrTimeout = errors.New("timed out")
	// ErrResponse: what came back is not an acceptable HTTP response.
	ErrResponse = errors.New("malformed response of the security server")
	// ErrMaintenance: every candidate is in maintenance mode.
	ErrMaintenance = errors.New("security server in maintenance mode")
	// ErrClosed: the client has been closed.
	ErrClosed = errors.New("tunnel client closed")
)

// StatusError tells that a peer answered with an HTTP status that carries no
// message. X-Road knows 200, and 500 with a SOAP fault.
type StatusError struct {
	Status      int
	ContentType string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the security server answered with HTTP status %d", e.Status)
}

// Time-outs and bounds.
const (
	// connectTimeout is X-Road's for a connection between security servers; TCP
	// and TLS together.
	connectTimeout = 30 * time.Second
	// headStart is how long the server that won the last race is tried alone:
	// the others must not wait long if it is down (X-Road: five seconds).
	headStart = 500 * time.Millisecond
	// winnerLifetime is how long the winner of a race is preferred (X-Road's).
	winnerLifetime = time.Hour
	// idleTimeout is below the 30 s after which X-Road's listeners close idle
	// connections, so that one is rarely closed just as it is used.
	idleTimeout = 25 * time.Second
	// maxIdle bounds the idle connections to one address: about as many as
	// there are messages under way to one busy peer.
	maxIdle = 256
	// maxCandidates bounds the connections of one race.
	maxCandidates = 16
	// maxWinners bounds the remembered races: about as many as there are services.
	maxWinners = 4096
	// maxResponseHead bounds status line and headers; real ones are below 1 KB.
	maxResponseHead = 64 << 10
	// ocspTimeout bounds a question to port 5577 (X-Road: connect 20 s, read
	// 30 s). The consumer's client is waiting meanwhile.
	ocspTimeout = 20 * time.Second
	// verdictLifetime bounds how long a peer's certificate is believed without
	// another look at its signatures (X-Road's for OCSP verdicts).
	verdictLifetime = time.Minute
)
