// SPDX-License-Identifier: Apache-2.0

package profile

// StageOf is stageOf.
var StageOf = stageOf
