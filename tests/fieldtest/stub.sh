#!/.usr/bin/dash
# Stands for a command with effects outside of the sandbox: says that it was called, prints something, succeeds.
#
# One line a call: where, what, with which arguments, and a digest of its stdin where it is one that reads it. Beside
# it, in another file, the environment that it saw. What only looks at the machine is answered and not written down.
name=${0##*/}
field=/.field
real=/.usr/bin
frozen='2026-03-14 03:17:00'

last() { for last; do :; done; printf '%s' "$last"; }

# the value of an option: `-o FILE` or `--output=FILE`
option() {
    short=$1 long=$2
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        "$short" | "$long") printf '%s' "$2" && return ;;
        "$long"=*) printf '%s' "${1#*=}" && return ;;
        esac
        shift
    done
}

temporary() {
    kind=file folder=${TMPDIR:-/tmp} template= in=
    while [ $# -gt 0 ]; do
        case $1 in
        -d | --directory) kind=folder ;;
        -p) folder=$2 in=yes && shift ;;
        --tmpdir=*) folder=${1#*=} in=yes ;;
        -t | --tmpdir) in=yes ;;
        -u | --dry-run) kind=name ;;
        -td | -dt) kind=folder in=yes ;;
        --suffix=*) suffix=${1#*=} ;;
        -*) ;;
        *) template=$1 ;;
        esac
        shift
    done
    [ -n "$template" ] || { template=tmp.XXXXXXXXXX in=yes; }
    [ -z "$in" ] || template=$folder/$template
    number=$(($($real/cat $field/mktemp 2>/dev/null || echo 0) + 1))
    echo $number >$field/mktemp
    path=$(printf '%s' "$template" | $real/sed "s/XXX*\([^X]*\)\$/$($real/printf '%06d' $number)\1/")${suffix-}
    umask 077
    case $kind in
    file) : >"$path" || exit 1 ;;
    folder) $real/mkdir "$path" || exit 1 ;;
    esac
    printf '%s\n' "$path"
}

case $name in
date)
    LD_PRELOAD=@FAKETIME@ FAKETIME=$frozen NO_FAKE_STAT=1 exec $real/date "$@"
    ;;
mktemp)
    exec 9>>$field/lock && $real/flock 9
    temporary "$@"
    exit
    ;;
hostname)
    case $1 in -f | --fqdn) echo field.example.org ;; -I | -i) echo 192.0.2.7 ;; -d) echo example.org ;; *) echo field ;; esac
    exit
    ;;
whoami | logname) echo root && exit ;;
id)
    case $* in *-u*n*) echo root ;; *-u* | *-g*) echo 0 ;; *) echo 'uid=0(root) gid=0(root) groups=0(root)' ;; esac
    exit
    ;;
uname)
    case $1 in -r) echo 6.1.0-18-amd64 ;; -m | -p | -i) echo x86_64 ;; -n) echo field ;; '' | -s) echo Linux ;;
    *) echo 'Linux field 6.1.0-18-amd64 #1 SMP Debian x86_64 GNU/Linux' ;; esac
    exit
    ;;
nproc) echo 4 && exit ;;
uptime) echo ' 03:17:00 up 12 days,  4:05,  1 user,  load average: 0.42, 0.36, 0.30' && exit ;;
free)
    echo '               total        used        free      shared  buff/cache   available'
    echo 'Mem:            7951        2210        1033         121        4708        5310'
    echo 'Swap:           2047          12        2035'
    exit
    ;;
df)
    echo 'Filesystem     1K-blocks     Used Available Use% Mounted on'
    echo '/dev/sda1       41152736 17283412  21747848  45% /'
    echo '/dev/sdb1      103081248 92773120   5042400  95% /backup'
    exit
    ;;
ps | top)
    echo '  PID TTY          TIME CMD'
    echo '    1 ?        00:00:09 systemd'
    echo '  712 ?        00:01:44 nginx'
    exit
    ;;
who | w | last | users) echo 'alice    pts/0        2026-03-14 01:02 (192.0.2.9)' && exit ;;
uuidgen) echo 7c9e6679-7425-40de-944b-e07fc1f90ae7 && exit ;;
pgrep | pidof | fuser | mountpoint) exit 1 ;;
nologin) exit 1 ;;
sudo | doas | fakeroot | unbuffer)
    while :; do
        case $1 in -u | -g | -U) shift 2 ;; -* | *=*) shift ;; *) break ;; esac
    done
    exec "$@"
    ;;
esac

digest=
reads=
case $name in
mail | mailx | s-nail | sendmail | mutt | msmtp | ssmtp | mysql | mariadb | psql | ssh | crontab | swaks | at | batch | wall) reads=yes ;;
esac
case " $* " in *" - "* | *" @- "* | *@-* | *" /dev/stdin "* | *" --stdin"* | *" -i "*) reads=yes ;; esac
[ "$name" != logger ] || [ ! -p /dev/stdin ] || reads=yes
if [ -n "$reads" ] && [ ! -t 0 ]; then
    digest=$($real/sha256sum)
    digest=" <${digest%% *}"
fi
exec 9>>$field/lock && $real/flock 9
{
    printf '%s$ %s' "$PWD" "$name"
    for argument; do
        printf ' %s' "$argument" | $real/tr '\n' '~'
    done
    printf '%s\n' "$digest"
} >>$field/calls
{
    printf '%s$ %s:\n' "$PWD" "$name"
    $real/env -0 | $real/tr '\n\0' '~\n' | LC_ALL=C $real/sort
} >>$field/environments
exec 9>&-

case $name in
sleep | usleep | true) ;;
curl)
    into=$(option -o --output "$@")
    [ -z "$into" ] || [ "$into" = /dev/null ] || echo 'what curl fetched' >"$into"
    case " $* " in *http_code*) printf 200 ;; *" -O "*) echo 'what curl fetched' >"$(last "$@" | $real/sed 's:.*/::')" ;;
    *) [ -n "$into" ] || echo '{"status":"ok","id":7,"items":[]}' ;; esac
    ;;
wget)
    into=$(option -O --output-document "$@")
    case $into in
    -) echo 'what wget fetched' ;;
    '') echo 'what wget fetched' >"$(last "$@" | $real/sed 's:.*/::')" ;;
    *) echo 'what wget fetched' >"$into" ;;
    esac
    ;;
mysqldump | mariadb-dump | pg_dump | pg_dumpall | mongodump | ldapsearch | slapcat)
    into=$(option -f --file "$@")
    [ -n "$into" ] || into=$(option -r --result-file "$@")
    [ -n "$into" ] || into=/dev/stdout
    printf '%s\n' "-- dump of $(last "$@")" 'CREATE TABLE t (a int);' 'INSERT INTO t VALUES (1),(2);' >>"$into"
    ;;
mysql | mariadb | psql) printf '%s\n' wiki shop ;;
docker | podman)
    case $* in ps*-q* | "ps -aq"*) printf '%s\n' 1f2e3d4c 5b6a7988 ;; ps*) printf '%s\n' web db ;;
    inspect*) echo running ;; *) echo "$name did: $1" ;; esac
    ;;
systemctl | service)
    case $* in *is-active*) echo active ;; *is-enabled*) echo enabled ;; esac
    ;;
git)
    case $* in *rev-parse*) echo 9f2c41d07be5 ;; *"branch"*) echo main ;; *"status"*porcelain*) echo ' M README.md' ;;
    *diff*--quiet*) exit 1 ;; *) echo "git did: $1" ;; esac
    ;;
gpg | gpg2 | openssl | age)
    into=$(option -o --output "$@")
    [ -n "$into" ] || into=$(option -out -out "$@")
    if [ -n "$into" ]; then echo encrypted >"$into"; else echo encrypted; fi
    ;;
logger | wall | notify-send | beep | reboot | shutdown | poweroff | halt | mount | umount | sync | renice | ionice_) ;;
crontab) case $1 in -l) echo '0 3 * * * /opt/scripts/nightly.sh' ;; esac ;;
*) echo "$name was called" ;;
esac
exit 0
