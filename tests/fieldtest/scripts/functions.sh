#!/bin/bash
# Functions that call each other, with attributes, locals, recursion and a name that a builtin has.
log() { printf '%s[%d]: %s\n' "${FUNCNAME[1]:-main}" "$depth" "$*"; }
depth=0

down() {
    local depth=$1
    log "down to $depth"
    ((depth > 0)) && down $((depth - 1))
    return "$depth"
}

cd() {
    builtin cd "$@" && echo "now in ${PWD##*/}"
}
export -f log
declare -ft down

# Down and up again
down 3
echo "status $?"

# A folder of its own
mkdir "$HERE/folder"
cd "$HERE/folder"

# In another shell
depth=7 bash -c 'log "from a child"'

# The one that is defined late
late() {
    cat <<-EOT
	a heredoc in a function, ${1:-nothing}
	EOT
}
late "with an argument"
late "and into a file" >file
mv file moved
unset -f late
type late 2>/dev/null || echo "late is gone"

# A message of the shell from within a function
broken() {
    [ "$1" -gt 0 ] && echo big
    : "${unset_in_function:-}"
    shift 9 || echo "nothing to shift"
}
broken "not a number"
declare -F
