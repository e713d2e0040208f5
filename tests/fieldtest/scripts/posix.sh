#!/bin/sh
# Functions, heredocs and positional parameters of a plain sh, with a status that matters.
say() {
    # $1: what
    echo "$0: $1" | sed "s:$HERE::"
}

twice() { say "$1"; say "$1"; }

say "begins"
set -- a 'b c' "d
e"
umask 027

# Parameters are still there
echo "$# parameters"
for word; do say "$word"; done
shift
say "then $1"

nested() {
    inner() { echo "inner of $1"; }
    inner "$@"
}

# Files by a heredoc
cat >"$HERE/config" <<EOT
# home: ${HOME:+set}
words=$#
$(twice "from within")
EOT
cat >"$HERE/raw" <<'EOT'
$HOME `stays` as it is \
EOT
nested one
mv "$HERE/raw" "$HERE/rawer"

# Read it again
while IFS== read -r key value; do
    case $key in \#*) continue ;; words) echo "words is $value" ;; esac
done <"$HERE/config"
ls -l "$HERE/config" | cut -c1-10
readonly fixed=1
IFS=:
path=x:y:z

# The field separator is kept
for part in $path; do echo "part $part"; done
sort -o "$HERE/sorted" "$HERE/config"
(fixed=2) 2>/dev/null || echo "fixed is $fixed"
unset LANG
env | grep -c '^LANG=' || true
sh -c 'exit 3'
