// SPDX-License-Identifier: Apache-2.0

package roles

var (
	OpenToken   = openToken
	ChangePIN   = changePIN
	NextPIN     = nextPIN
	TokenDir    = tokenDir
	AccountsDir = accountsDir
	HoldGateway = holdGateway
	GiveBackAs  = giveBack
)
