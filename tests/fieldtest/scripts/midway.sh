#!/bin/sh
# Leaves in the middle when there is nothing to do: later steps must not run, and the trap has to.
set -eu
trap 'echo "trap: $?"' EXIT
mkdir -p "$HERE/in"
tar -cf "$HERE/before.tar" -C "$HERE" in

# Look for work
for file in "$HERE"/in/*; do
    [ -e "$file" ] || { echo "nothing to do"; exit 0; }
done

# Never reached
echo "there was work"
mv "$HERE/in" "$HERE/out"
touch "$HERE/worked"
