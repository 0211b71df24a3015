#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# compare.sh BASE FOLDER: runs the benchmarks of the packages on the commit BASE
# and on the tree as it is, in turns, and compares them with benchstat. The
# results stay in FOLDER.
#
# BENCH selects benchmarks (a pattern), COUNT says how often each runs and
# BENCHTIME how long. Those of a large ecosystem take minutes and have a section
# of make bench.
set -euo pipefail

base=${1:?which commit? make bench-compare BASE=COMMIT}
mkdir -p "$2"
folder=$(cd "$2" && pwd)
pattern=${BENCH:-.}
benchstat=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

commit=$(git rev-parse --verify --quiet "$base^{commit}") || { echo "bench-compare: there is no commit $base" >&2; exit 2; }
tree=$(mktemp -d "$folder/base-XXXXXX")
trap 'git worktree remove --force "$tree"' EXIT
trap 'exit 130' INT TERM
git worktree add -q --detach "$tree" "$commit"

run() { # folder of a tree, file for the results
	local packages
	mapfile -t packages < <(cd "$1" && grep -rl --include=*_test.go '^func Benchmark' cmd gateway pki registry config | xargs -n1 dirname | sort -u | sed 's|^|./|')
	(cd "$1" && go test -run '^$' -bench "$pattern" -skip 'Large' -benchmem -benchtime "${BENCHTIME:-200ms}" "${packages[@]}") >>"$2"
}

rm -f "$folder/base.txt" "$folder/now.txt"
count=${COUNT:-6}
for i in $(seq "$count"); do
	echo "round $i of $count: $base" >&2
	run "$tree" "$folder/base.txt"
	echo "round $i of $count: the tree as it is" >&2
	run . "$folder/now.txt"
done
go run "$benchstat" "$base=$folder/base.txt" "now=$folder/now.txt"
