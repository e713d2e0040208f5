#!/bin/bash -u
# Options of the command line, of set and of shopt; a script that is called without any argument of its own.
verbose= name=nobody
set -- -v -n 'some body' file1 file2
while getopts :vn: option; do
    case $option in
    v) verbose=1 ;;
    n) name=$OPTARG ;;
    \?) echo "unknown option $OPTARG" ;;
    esac
done
shift $((OPTIND - 1))
echo "verbose ${verbose:-0}, name $name, $# left: $*"

# Globs and matches
shopt -s nullglob nocasematch
cd "$HERE"
touch unnamed
mv unnamed a.TXT
for file in *.none; do echo "never $file"; done
[[ A.txt == a.TXT ]] && echo "case does not matter"

# Still so
case FILE in file) echo "nor here" ;; esac
mv a.TXT b.TXT
set -f
echo *.TXT
set +f -o noclobber

# Do not overwrite
echo 1 >c
sort -o d c
{ echo 2 >c; } 2>/dev/null || echo "kept: $(<c)"
shopt -u nocasematch
[[ A == a ]] || echo "case matters again"
set +o noclobber
$undefined_variable
echo "never reached"
