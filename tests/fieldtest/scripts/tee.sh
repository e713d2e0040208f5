#!/bin/bash
# Output and a log at once, by a tee in a process substitution.
exec > >(tee -a "$HERE/log") 2>&1
echo "line 1"
echo begun >"$HERE/state.1"

# The second
echo "line 2" >&2
mv -v "$HERE/state.1" "$HERE/state.2" | sed "s:$HERE::g"

# The third, and many more
echo "line 3"
seq 1 2000
mv "$HERE/state.2" "$HERE/state.3"

# The last
mv "$HERE/state.3" "$HERE/state.4"
echo "the end"
