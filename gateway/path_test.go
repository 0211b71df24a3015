// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The numbers in the two walks are those of the design note; such numbers
// drift unless something holds them.
func TestStepNumbers(t *testing.T) {
	note, err := os.ReadFile("../docs/design/message-path.md")
	if err != nil {
		t.Fatal(err)
	}
	for fn, file := range map[string]string{"clientExchange": "clientproxy.go", "serverExchange": "serverproxy.go"} {
		_, section, ok := strings.Cut(string(note), "`"+fn+"`")
		if !ok {
			t.Fatalf("the design note does not describe %s", fn)
		}
		section, _, _ = strings.Cut(section, "\n#")
		var want []string
		for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllStringSubmatch(section, -1) {
			want = append(want, m[1])
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, body, ok := strings.Cut(string(src), ") "+fn+"(")
		if !ok {
			t.Fatalf("%s has no %s", file, fn)
		}
		body, _, _ = strings.Cut(body, "\n}\n")
		var got []string
		for _, m := range regexp.MustCompile(`(?m)// (\d+)(?::.*)?$`).FindAllStringSubmatch(body, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: steps %v, the design note has %v", fn, got, want)
		}
	}
}
