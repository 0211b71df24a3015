// SPDX-License-Identifier: Apache-2.0

package roles_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"kontor/cmd/roles"
)

func TestUnwritten(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-01eeb000 r-xp 00000000 fe:00 1234                       /usr/bin/kontor
Size:              27564 kB
Rss:               23084 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01eeb000-03aa2000 r--p 01aeb000 fe:00 1234                       /usr/bin/kontor
Rss:               21276 kB
Anonymous:             4 kB
03aa2000-03ab2000 r--p 036a2000 fe:00 1234                       /usr/bin/kontor
Anonymous:             0 kB
03ab2000-03b92000 rw-p 036b2000 fe:00 1234                       /usr/bin/kontor
Anonymous:             0 kB
03b92000-05bee000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 99                 /usr/lib/other
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xs 00000000 fe:00 1234               /usr/bin/kontor
Anonymous:             0 kB
`
	got, err := roles.Unwritten(strings.NewReader(smaps), "/usr/bin/kontor")
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%x", got); text != "[{400000 1eeb000} {3aa2000 3ab2000}]" {
		t.Error(text)
	}
}

// TestDropProgram: less of the program is in memory afterwards, and all of it
// still there for who needs it.
func TestDropProgram(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := resident(t, program)
	if err := roles.DropProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, program); after >= before {
		t.Errorf("%d KiB of the program were in memory and are %d", before, after)
	}
	if !slices.Contains(strings.Fields(strings.ToUpper("some code and constants")), "CONSTANTS") {
		t.Error("the program is not itself")
	}
}

// resident is how much of a file is mapped without a right to write, in KiB.
func resident(t *testing.T, file string) (sum int) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ours := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var from, to, kib int
		var access string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); n == 3 {
			ours = access[:1] == "r" && access[1:2] == "-" && strings.HasSuffix(lines.Text(), " "+file)
		}
		if n, _ := fmt.Sscanf(lines.Text(), "Rss: %d kB", &kib); n == 1 && ours {
			sum += kib
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sum
}
