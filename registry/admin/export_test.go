// SPDX-License-Identifier: Apache-2.0

package admin

// About is about.
var About = about
