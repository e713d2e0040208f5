#!/bin/bash
# Everything goes to a log from here on, and the offset and the descriptors are kept.
echo "to the output"
exec 3>&1
exec >>"$HERE/log" 2>&1
echo "first into the log"

# More for the log
mv /does/not/exist .
echo "to the output again" >&3

# A second file, read and written through descriptors
exec 4>"$HERE/second"
echo 1 >&4
printf 'c\nb\na\n' >"$HERE/lines"
sort -o "$HERE/lines" "$HERE/lines"

# Written on
echo 2 >&4
exec 5<"$HERE/lines"
read -r line <&5
echo "read $line"
mv "$HERE/lines" "$HERE/sorted"

# Read on where it was
read -r line <&5
echo "read $line"
exec 5<&-
echo 3 >&4
dd if="$HERE/sorted" of="$HERE/copy" status=none

# Back to the output
exec 4>&- >&3 2>&1 3>&-
echo "done"
cat "$HERE/log" "$HERE/second"
echo "gone: $( (echo x >&3) 2>&1 | sed 's/.*: //')"
