#!/bin/bash
# What the shell does to itself holds to its end: limits, niceness, times.
ulimit -Sn 100
renice -n 5 -p $$ >/dev/null

# A step later
ulimit -Sn
nice

# The time since the beginning does not begin again
SECONDS=1000

# It has gone on
[ "$SECONDS" -ge 1000 ] && [ "$SECONDS" -lt 1060 ] && echo "about 1000 seconds"
