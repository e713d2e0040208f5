#!/bin/bash
# Nightly copy, which cleans up behind itself.
#
# What it covers: EXIT, ERR and signal traps, a temporary file with the shell's pid, a failure in the middle.
set -Eeuo pipefail

work="$HERE/work.$$"
mkdir "$work"
cleanup() {
    local status=$?
    echo "cleanup after $status in ${PWD#"$work"}the folder, which has $(ls "$work" | wc -l) files"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'echo "failed at line $LINENO: $BASH_COMMAND"' ERR
trap 'echo "got USR1"; signalled=yes' USR1

# Fill the folder
echo one >"$work/1"
echo two >"$work/2"

# A signal to itself
signalled=no
kill -USR1 $BASHPID
echo "signalled: $signalled"
mv "$work/2" "$work/3"

# Count what is there
cd "$work"
count=$(ls | wc -l)
echo "there are $count"
trap

# Copy them away
cat 1 3 >"$HERE/copied"
sort -r -o "$HERE/copied" "$HERE/copied"
false | true || echo "a pipe that failed"

# This one fails
grep three 1 3
echo "never reached"
