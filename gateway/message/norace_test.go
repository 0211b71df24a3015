// SPDX-License-Identifier: Apache-2.0

//go:build !race

package message_test

const raceEnabled = false
