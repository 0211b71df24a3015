// SPDX-License-Identifier: Apache-2.0

package roles

var (
	Unwritten   = unwritten
	DropProgram = dropProgram
)
