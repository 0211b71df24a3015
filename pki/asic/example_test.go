// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"crypto/sha512"
	"fmt"

	"kontor/pki/asic"
)

// One signature for two messages, the first of which has an attachment: the
// result is signed, each receiver gets the chain that leads from it to its own
// message.
func ExampleBuildChains() {
	first := []asic.Digest{sha512.Sum512([]byte("message 1")), sha512.Sum512([]byte("attachment"))}
	second := []asic.Digest{sha512.Sum512([]byte("message 2"))}
	result, chains, err := asic.BuildChains([][]asic.Digest{first, second})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(asic.VerifyHashChain(result, chains[0], map[string]asic.Digest{"/message.xml": first[0], "/attachment1": first[1]}))
	fmt.Println(asic.VerifyHashChain(result, chains[1], map[string]asic.Digest{"/message.xml": first[0]}))
	// Output:
	// <nil>
	// hash chain reference does not match: digest of /message.xml
}
