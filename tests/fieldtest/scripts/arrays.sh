#!/bin/bash
# Arrays and other attributes of variables, with values that do not like to be written down.
declare -a files=('one two' $'tab\there' $'two\nlines' '' "quote's" '"double"' '\back' '$dollar' '`tick`' '*')
declare -A sizes=([small]=1 ['with blank']=2 [$'new\nline']=3 ['$x']=4)
declare -i number=6*7
declare -r constant='never changes'
declare -l lower=SHOUT
declare -u upper=whisper
declare -x exported='to children'
declare -n alias_of=number
empty=()
declare declared_only
sparse[7]=seven

echo "${#files[@]} files, number $number, $lower $upper"

# After the first step
number=number+1
alias_of+=1
echo "number is $number"
touch "$HERE/${files[0]}"
mv "$HERE/${files[0]}" "$HERE/${files[4]}"
(constant=changed) 2>&1 || echo "still: $constant"
lower=AGAIN
echo "$lower"

# All of them
for index in "${!files[@]}"; do
    printf '%d=%q\n' "$index" "${files[index]}"
done
for key in small 'with blank' $'new\nline' '$x'; do
    printf '%q -> %s\n' "$key" "${sizes[$key]}"
done
echo "${#empty[@]} ${declared_only-unset} ${!sparse[*]}"
mv "$HERE/${files[4]}" "$HERE/${files[2]}"

# What children see
sh -c 'echo "child: $exported ${number-not exported}"'
files+=(last)
unset 'files[0]'
echo "${#files[@]} ${files[@]: -1}"

# Nearly the end
declare -p files sizes number constant lower upper alias_of empty sparse | sort
