#!/bin/bash
# One at a time, by a lock on a descriptor that is held to the end.
set -u
exec 200>"$HERE/lock"
flock -n 200 || { echo "somebody else runs"; exit 1; }
echo $$ >&200

# Whoever tries now is refused
flock -n "$HERE/lock" true || echo "refused"
sort -o "$HERE/other" /dev/null

# Still held, a step later
if flock -n "$HERE/lock" true; then echo "the lock is lost"; else echo "still held"; fi
[ "$(cat "$HERE/lock")" = "$$" ] && echo "and it is ours"
mv "$HERE/other" "$HERE/another"

# Let go
flock -u 200
flock -n "$HERE/lock" echo "free again"
: >"$HERE/lock"
