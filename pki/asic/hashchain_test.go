// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kontor/pki/asic"
)

// The worked example: a REST request with a body.
const (
	exampleHead = "POST\r\n/r1/DEV/COM/1234/TestService/mock1/v1/pets?limit=2\r\nContent-Type:application/json\r\n" +
		"X-Road-Client:DEV/COM/4422/TestClient\r\nAccept:*/*\r\nx-road-request-id:78b890f3-b1eb-45b2-a512-beec5d7ead23\r\n" +
		"x-road-id:DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86\r\n"
	exampleBody      = `{"name":"Rex"}`
	exampleHeadHash  = "VHWbZ522qCkPtCS8gc0GQc/hHLxsiL9OgPkWPiUVzOFMVqlQsKtxgQyscg2VvTnGpTiWlzG5Up7vu8RxVbk3Pw=="
	exampleBodyHash  = "ybwGMBy+7m/Hfb++aZZqpHMvJVOmD1S6zqfUVDyGUG6UaHXQbnmnZH2+PagYEea5F6Abfnevo2tvy7FamxgKkA=="
	exampleTop       = "toDnMrXWCz1dJ1W/Y/6odHx30P7PrI3bL7UTvl0kMhuRiA2KXeWXmP/HmYppHa0rLjhficVhZiK5POzXH8PjDA=="
	exampleResultSum = "ZayootXV/Rua9lQeTUocQDi4lEigZcLa4rwGw4APj53AZsGUWGCcNP65VasG2O2l6fnYwfRXLMwASesyMbijCw=="
	exampleChainHead = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<ns2:HashChain xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain">
    <ns2:DefaultDigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>
`
)

func b64(d asic.Digest) string { return base64.StdEncoding.EncodeToString(d[:]) }

func TestWorkedExample(t *testing.T) {
	head, body := sha512.Sum512([]byte(exampleHead)), sha512.Sum512([]byte(exampleBody))
	if len(exampleHead) != 248 || b64(head) != exampleHeadHash || b64(body) != exampleBodyHash {
		t.Fatal("the example itself is mistyped")
	}
	if top := asic.Leaf([]asic.Digest{head, body}); b64(top) != exampleTop {
		t.Errorf("top %s", b64(top))
	}
	result, chains, err := asic.BuildChains([][]asic.Digest{{head, body}})
	if err != nil {
		t.Fatal(err)
	}
	wantResult := `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<ns2:HashChainResult URI="/sig-hashchain.xml#STEP0" xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain">
    <DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>
    <DigestValue>` + exampleTop + `</DigestValue>
</ns2:HashChainResult>
`
	if string(result) != wantResult || len(result) != 405 || b64(sha512.Sum512(result)) != exampleResultSum {
		t.Errorf("result of %d bytes:\n%s", len(result), result)
	}
	wantChain := exampleChainHead + `    <ns2:HashStep id="STEP0">
        <ns2:DataRef URI="/message.xml">
            <DigestValue>` + exampleHeadHash + `</DigestValue>
        </ns2:DataRef>
        <ns2:DataRef URI="/attachment1">
            <DigestValue>` + exampleBodyHash + `</DigestValue>
        </ns2:DataRef>
    </ns2:HashStep>
</ns2:HashChain>
`
	if string(chains[0]) != wantChain || len(chains[0]) != 687 {
		t.Errorf("chain of %d bytes:\n%s", len(chains[0]), chains[0])
	}
}

// messages makes n messages of 1 + i%parts parts each.
func messages(n, parts int) [][]asic.Digest {
	var all [][]asic.Digest
	for i := range n {
		var m []asic.Digest
		for p := range 1 + i%parts {
			m = append(m, sha512.Sum512(fmt.Appendf(nil, "%d/%d", i, p)))
		}
		all = append(all, m)
	}
	return all
}

func partMap(m []asic.Digest) map[string]asic.Digest {
	parts := map[string]asic.Digest{"/message.xml": m[0]}
	for i, d := range m[1:] {
		parts[fmt.Sprintf("/attachment%d", i+1)] = d
	}
	return parts
}

// reference computes the root by recursion: the left subtree is the largest
// power of two below n.
func reference(leaves []asic.Digest) asic.Digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return asic.Leaf([]asic.Digest{reference(leaves[:k]), reference(leaves[k:])})
}

func TestTreeShapes(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 17; n++ {
		for parts := 1; parts <= 3; parts++ {
			all := messages(n, parts)
			if n == 1 {
				all[0] = append(all[0], sha512.Sum512([]byte("body")))
			}
			result, chains, err := asic.BuildChains(all)
			if err != nil {
				t.Fatal(err)
			}
			var leaves []asic.Digest
			for _, m := range all {
				leaves = append(leaves, asic.Leaf(m))
			}
			if top := reference(leaves); !bytes.Contains(result, []byte(b64(top))) {
				t.Errorf("%d messages: root is not %s", n, b64(top))
			}
			for i, chain := range chains {
				if err := asic.VerifyHashChain(result, chain, partMap(all[i])); err != nil {
					t.Errorf("%d messages of up to %d parts, message %d: %v\n%s", n, parts, i, err, chain)
				}
				if !asic.IsOwnForm(result, chain) {
					t.Errorf("the scanner does not know our own form:\n%s", chain)
				}
				if err := asic.VerifyParsed(result, chain, partMap(all[i])); err != nil {
					t.Errorf("as XML: %v", err)
				}
				if other := all[(i+1)%n]; n > 1 {
					if err := asic.VerifyHashChain(result, chain, partMap(other)); err == nil {
						t.Errorf("chain %d of %d fits another message", i, n)
					}
				}
			}
		}
	}
}

func TestTimestampChains(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 33; n++ {
		leaves := make([]asic.Digest, n)
		for i := range leaves {
			leaves[i] = sha512.Sum512([]byte{byte(i)})
		}
		result, chains, err := asic.BuildTimestampChains(leaves)
		if err != nil {
			t.Fatal(err)
		}
		if alone, err := asic.TimestampResult(leaves); err != nil || !bytes.Equal(alone, result) {
			t.Errorf("TimestampResult differs: %v", err)
		}
		for i, chain := range chains {
			if err := asic.VerifyHashChain(result, chain, map[string]asic.Digest{"/META-INF/signatures.xml": leaves[i]}); err != nil {
				t.Errorf("leaf %d of %d: %v", i, n, err)
			}
			if alone, err := asic.TimestampChain(leaves, i); err != nil || !bytes.Equal(alone, chain) {
				t.Errorf("TimestampChain differs: %v", err)
			}
		}
	}
	if _, _, err := asic.BuildTimestampChains(make([]asic.Digest, 1)); err == nil {
		t.Error("a chain for a single signature")
	}
}

func TestNothingToChain(t *testing.T) {
	for _, m := range [][][]asic.Digest{nil, {{}}, {{asic.Digest{}}}, {{asic.Digest{}}, {}}} {
		if _, _, err := asic.BuildChains(m); err == nil {
			t.Errorf("%d messages are chained", len(m))
		}
	}
}

func TestHashChainErrors(t *testing.T) {
	t.Parallel()
	all := messages(3, 2)
	result, chains, err := asic.BuildChains(all)
	if err != nil {
		t.Fatal(err)
	}
	res, chain, parts := string(result), string(chains[1]), partMap(all[1])
	edit := func(s string, pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(s, pairs[i]) {
				t.Fatalf("no %q in\n%s", pairs[i], s)
			}
			s = strings.Replace(s, pairs[i], pairs[i+1], 1)
		}
		return s
	}
	more := partMap(all[1])
	more["/attachment2"] = asic.Digest{1}
	wrong := partMap(all[1])
	wrong["/attachment1"] = asic.Digest{1}
	short := map[string]asic.Digest{"/message.xml": all[1][0]}
	sibling := b64(asic.Leaf(all[0]))

	tests := []struct {
		name, result, chain string
		parts               map[string]asic.Digest
		want                error
	}{
		{"good", res, chain, parts, nil},
		{"part missing", res, chain, short, asic.ErrHashChainRef},
		{"part changed", res, chain, wrong, asic.ErrHashChainRef},
		{"part not covered", res, chain, more, asic.ErrUnusedInputs},
		{"neighbour changed", res, edit(chain, sibling, b64(asic.Digest{2})), parts, asic.ErrHashChain},
		{"no such step", res, edit(chain, `"#STEP2"`, `"#STEP9"`), parts, asic.ErrMalformedHashChain},
		{"cycle", res, edit(chain, `"#STEP2"`, `"#STEP0"`), parts, asic.ErrMalformedHashChain},
		{"unused step", res, edit(chain, "</ns2:HashChain>", "    <ns2:HashStep id=\"X\">\n    </ns2:HashStep>\n</ns2:HashChain>"), parts, asic.ErrMalformedHashChain},
		{"step of the other document", edit(res, "/sig-hashchain.xml#STEP0", "/other.xml#STEP0"), chain, parts, asic.ErrMalformedHashChain},
		{"no fragment", edit(res, "#STEP0", ""), chain, parts, asic.ErrMalformedHashChain},
		{"transforms", res, edit(chain, `<ns2:DataRef URI="/message.xml">`, `<ns2:DataRef URI="/message.xml"><Transforms/>`), parts, asic.ErrMalformedHashChain},
		{"unknown element", res, edit(chain, "<ns2:HashValue>", "<ns2:HashValue><x/>"), parts, asic.ErrMalformedHashChain},
		{"unknown attribute", res, edit(chain, `id="STEP0"`, `id="STEP0" x="y"`), parts, asic.ErrMalformedHashChain},
		{"attribute twice", res, edit(chain, `id="STEP0"`, `id="STEP0" id="STEP0"`), parts, asic.ErrMalformedHashChain},
		{"document type", res, "<!DOCTYPE x>" + chain[len(`<?xml version="1.0" encoding="UTF-8" standalone="yes"?>`):], parts, asic.ErrMalformedHashChain},
		{"comment", res, edit(chain, "<ns2:HashValue>", "<!-- --><ns2:HashValue>"), parts, asic.ErrMalformedHashChain},
		{"text", res, edit(chain, "<ns2:HashValue>", "x<ns2:HashValue>"), parts, asic.ErrMalformedHashChain},
		{"namespace", res, strings.ReplaceAll(chain, "http://cyber.ee/hashchain", "http://cyber.ee/hashchains"), parts, asic.ErrMalformedHashChain},
		{"weak digest", res, strings.ReplaceAll(chain, "http://www.w3.org/2001/04/xmlenc#sha512", "http://www.w3.org/2000/09/xmldsig#sha1"), parts, asic.ErrMalformedHashChain},
		{"trailing", res, chain + "<x/>", parts, asic.ErrMalformedHashChain},
		{"loose base64", res, edit(chain, "==<", "==\n<"), parts, nil},
		{"empty", res, "", parts, asic.ErrMalformedHashChain},
		{"empty result", "", chain, parts, asic.ErrMalformedHashChain},
		{"huge", res, chain + strings.Repeat(" ", 1<<20), parts, asic.ErrMalformedHashChain},
		{"other prefixes", swap(res), swap(chain), parts, nil},
		{"one line", strings.ReplaceAll(res, "\n", ""), strings.ReplaceAll(chain, "\n", ""), parts, nil},
		{"declarations swapped", res, edit(chain, ` xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain"`,
			` xmlns:ns2="http://cyber.ee/hashchain" xmlns="http://www.w3.org/2000/09/xmldsig#"`), parts, nil},
		{"own digest method", res, strings.ReplaceAll(chain, "            <DigestValue>",
			"            <DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha512\"/>\n            <DigestValue>"), parts, nil},
	}
	for _, tt := range tests {
		err := asic.VerifyHashChain([]byte(tt.result), []byte(tt.chain), tt.parts)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// swap gives the default namespace to the other vocabulary.
func swap(doc string) string {
	return strings.NewReplacer(
		"<ns2:", "<", "</ns2:", "</",
		"<Digest", "<ns2:Digest", "</Digest", "</ns2:Digest",
		`xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain"`,
		`xmlns="http://cyber.ee/hashchain" xmlns:ns2="http://www.w3.org/2000/09/xmldsig#"`,
	).Replace(doc)
}

// TestMixedDigests checks a chain in which a neighbour and a step use another
// digest algorithm.
func TestMixedDigests(t *testing.T) {
	t.Parallel()
	m := sha512.Sum512([]byte("message"))
	sha256 := `<d:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>`
	chain := `<h:HashChain xmlns:h="http://cyber.ee/hashchain" xmlns:d="http://www.w3.org/2000/09/xmldsig#">
<h:DefaultDigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>
<h:HashStep id="a"><h:StepRef URI="#b">` + sha256 + `</h:StepRef><h:HashValue>` + sha256 + `<d:DigestValue>` +
		base64.StdEncoding.EncodeToString(make([]byte, 32)) + `</d:DigestValue></h:HashValue></h:HashStep>
<h:HashStep id="b"><h:DataRef URI="/message.xml"><d:DigestValue>` + b64(m) + `</d:DigestValue></h:DataRef></h:HashStep>
</h:HashChain>`
	top := asic.MixedExample(m)
	result := `<h:HashChainResult xmlns:h="http://cyber.ee/hashchain" xmlns:d="http://www.w3.org/2000/09/xmldsig#" URI="/sig-hashchain.xml#a">` +
		`<d:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/><d:DigestValue>` + b64(top) + `</d:DigestValue></h:HashChainResult>`
	if err := asic.VerifyHashChain([]byte(result), []byte(chain), map[string]asic.Digest{"/message.xml": m}); err != nil {
		t.Error(err)
	}
}

func FuzzHashChain(f *testing.F) {
	all := messages(5, 2)
	result, chains, err := asic.BuildChains(all)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range chains {
		f.Add(result, c)
		f.Add([]byte(swap(string(result))), []byte(swap(string(c))))
	}
	parts := partMap(all[1])
	f.Fuzz(func(t *testing.T, result, chain []byte) {
		fast := asic.VerifyHashChain(result, chain, parts)
		slow := asic.VerifyParsed(result, chain, parts)
		if (fast == nil) != (slow == nil) {
			t.Errorf("scanner %v, XML %v", fast, slow)
		}
	})
}

func BenchmarkBuildChains(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d messages of 2 parts", n), func(b *testing.B) {
			all := messages(n, 1)
			for i := range all {
				all[i] = append(all[i], asic.Digest{byte(i)})
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := asic.BuildChains(all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyHashChain(b *testing.B) {
	all := messages(8, 2)
	result, chains, err := asic.BuildChains(all)
	if err != nil {
		b.Fatal(err)
	}
	parts := partMap(all[1])
	b.ReportAllocs()
	for b.Loop() {
		if err := asic.VerifyHashChain(result, chains[1], parts); err != nil {
			b.Fatal(err)
		}
	}
}
