// SPDX-License-Identifier: Apache-2.0

//go:build race

package msglog_test

// stride thins out the crash matrices, which the race detector makes slow; it
// looks for something else.
const stride = 9
