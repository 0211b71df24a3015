// SPDX-License-Identifier: Apache-2.0

package archive

func init() { cost = 4 } // tests need no strong keys
