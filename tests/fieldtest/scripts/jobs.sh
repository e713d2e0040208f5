#!/bin/bash
# Background jobs and their wait, and the statuses of a pipe.
cd "$HERE" || exit
mkdir out

# Two at once
for part in 1 2; do
    (echo "part $part" >"out/$part") &
done
wait
cat out/1 out/2

# One that fails
(exit 5) &
pid=$!
wait "$pid"
echo "it ended with $?"

# What came of each part of a pipe
(exit 2) | (exit 3) | cat
echo "${PIPESTATUS[@]}"

# By a process substitution, and here-strings
read -r first rest <<<"alpha beta gamma"
echo "$first, $rest"
diff <(printf 'a\nb\n') <(printf 'a\nc\n')
echo "diff said $?"
mapfile -t lines < <(seq 3)
echo "${#lines[@]} lines"
