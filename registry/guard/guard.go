// SPDX-License-Identifier: Apache-2.0

// Package guard stands before the administration APIs: who may call them (API
// keys with roles, kept as hashes), how often (limits per address), what they
// are told when they may not (problem documents), and what they did (a durable
// audit log). Its client trusts exactly one certificate.
//
// It does not know what the APIs administer.
package guard
