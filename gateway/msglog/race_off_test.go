// SPDX-License-Identifier: Apache-2.0

//go:build !race

package msglog_test

const stride = 1
