#!/bin/bash
# Working folders, the stack of them, umask, aliases, and what the environment loses.
shopt -s expand_aliases
alias greet='echo hello from'
mkdir -p "$HERE"/{one,two/deep}
pushd "$HERE/one" >/dev/null
pushd ../two/deep >/dev/null
umask 077

# Where it is
echo "${PWD#"$HERE"} and ${OLDPWD#"$HERE"}"
dirs -p | sed "s:$HERE::"
touch private.1
mv private.1 private

# Back, one by one
popd >/dev/null
echo "${PWD#"$HERE"}"
greet "${PWD##*/}"
sort -o here /dev/null

# And a last one
cd - >/dev/null && echo "${PWD#"$HERE"}"
stat -c '%a %n' ../two/deep/private 2>/dev/null || stat -c '%a %n' private "$HERE"/two/deep/private 2>/dev/null
unalias greet
unset HOME
env | grep -c '^HOME='
sh -c 'echo "home is ${HOME-unset}, umask $(umask)"'

# Where the script thinks it is
echo "$(basename "$0") $(basename "${BASH_SOURCE[0]}") line $LINENO"
caller || echo "called by nobody"
