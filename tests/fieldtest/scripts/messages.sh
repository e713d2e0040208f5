#!/bin/bash
# What the shell itself says names the script and the line, in whichever step it stands.


no_such_command --with arguments
echo "status $?"

# Further down
cd /no/such/folder
mv /no/such/file .
echo $((1 / 0))
echo "after the division: $?"

# A file that is not there
source ./missing.sh
: >/no/such/folder/file
read -r nothing </no/such/file
sort -o /no/such/output /etc/hostname

# A function that complains
complain() {
    local -i number=$1
    [ "$number" -eq "$2" ]
    cat <"$3"
}

# And is called
complain 1 two /no/such/file
echo "line $LINENO"
exit_with=4
(exit $exit_with)
exit
