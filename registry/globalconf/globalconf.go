// SPDX-License-Identifier: Apache-2.0

// Package globalconf writes, signs, downloads, verifies and stores the global
// configuration of X-Road 7 (configuration versions 2 to 6) and answers
// questions about it from an immutable [View].
//
// An anchor, given out of band, names download locations and verification
// certificates. A location serves a signed directory, which names parts (files)
// by location and hash. Two parts matter most: the shared parameters (members,
// servers, certification and time-stamping authorities) and the private
// parameters (management services, trusted anchors of other instances).
//
// # What the reader accepts
//
// Documents are bounded, must be UTF-8, and are refused when they contain a
// DOCTYPE, a processing instruction, an element or attribute that the schema of
// their version does not know at that place, an unresolved IDREF, or an
// ambiguity: two members, subsystems, servers or groups of one name. A harmless
// repetition (the same client twice at one server) is tolerated, for X-Road
// tolerates it. An authentication certificate that two servers claim
// authenticates neither. SHA-1 is refused for signatures and part hashes. Of a
// verification certificate only the key counts, not dates or issuer, as in
// X-Road.
//
// A source speaks for its own instance only: parts of other instances in its
// directory are ignored, and the document must name the instance of the anchor.
// A federated source contributes shared parameters and nothing else.
//
// # Rollback
//
// A replayed configuration is validly signed until its Expire-date. X-Road's
// client takes it; this one does not. Central servers and configuration proxies
// put the instant of generation into the locations of the parts
// (/V6/20251110170000548026000/…, /proxy/1762794000548/…). A directory whose
// parts differ from the stored ones is refused with [ErrRollback] when that
// instant is earlier than the stored one; when one of the two locations does not
// tell it, the Expire-date is compared instead. Equal parts are no rollback: the
// later expiry is kept. Several central servers of one instance may be read in
// turn: the one that lags behind is refused until it has generated again, and
// meanwhile another location is asked. A generation in the future counts as
// five minutes after its receipt, so that a central server whose clock was wrong
// for a while does not lock its clients out. A changed anchor starts anew.
//
// # On disk
//
// The folder has X-Road's layout (instance-identifier, one folder per instance
// with parts and .metadata files), and beside the parts the signed directory
// itself (directory.mime, directory.mime.metadata), by which the folder can be
// verified offline with [LoadSignedDir]. A folder of an instance is written
// under another name, synced, and put in place by rename: an update is there as
// a whole or not at all.
package globalconf

import "errors"

// Versions of the global configuration that this package reads and writes.
const (
	MinVersion     = 2
	CurrentVersion = 6
)

// Content identifiers of the parts that X-Road knows.
const (
	ContentPrivateParams = "PRIVATE-PARAMETERS"
	ContentSharedParams  = "SHARED-PARAMETERS"
	ContentMonitoring    = "MONITORING"
	ContentFetchInterval = "FETCHINTERVAL"
	ContentNextUpdate    = "NEXTUPDATE"
)

// File names of the parts, in the distribution and on disk.
const (
	FilePrivateParams = "private-params.xml"
	FileSharedParams  = "shared-params.xml"
	FileMonitoring    = "monitoring-params.xml"
	FileFetchInterval = "fetchinterval-params.xml"
	FileNextUpdate    = "nextupdate-params.xml"
)

// Errors that callers test with errors.Is.
var (
	// ErrOutdated: the configuration's Expire-date has passed.
	ErrOutdated = errors.New("global configuration is outdated")
	// ErrSignature: no trusted certificate verifies the signed directory.
	ErrSignature = errors.New("signature of the configuration directory does not verify")
	// ErrHash: a part is not the one that the directory lists.
	ErrHash = errors.New("configuration part does not match its hash")
	// ErrMalformed: a document violates its format or schema, or is too large.
	ErrMalformed = errors.New("malformed global configuration")
	// ErrVersion: the configuration version is unknown or not the one asked for.
	ErrVersion = errors.New("unsupported configuration version")
	// ErrInstance: a document speaks for another instance than its source.
	ErrInstance = errors.New("configuration of another instance")
	// ErrMissingPart: the directory lacks a part that is needed.
	ErrMissingPart = errors.New("configuration part is missing")
	// ErrRollback: the configuration is older than the one already stored.
	ErrRollback = errors.New("older than the stored global configuration")
	// ErrUnavailable: no location could be downloaded, or nothing is stored.
	ErrUnavailable = errors.New("global configuration is unavailable")
)
