#!/bin/bash
# Nightly backup of the shop: the database and the uploads, here and on the other machine.
#
# Usage: backup.sh [--keep DAYS]
set -euo pipefail

KEEP=14
while [ $# -gt 0 ]; do
    case "$1" in
        --keep) KEEP=$2; shift 2 ;;
        *) echo "usage: $0 [--keep DAYS]" >&2; exit 2 ;;
    esac
done

TODAY=$(date +%F)
DIR=/var/backups/shop
DUMP=$DIR/shop-$TODAY.sql.gz

log() {
    echo "$(date +%T) $*"
}

fail() {
    log "failed at line $1"
    echo "The backup of $TODAY failed at line $1." | mail -s "shop: backup failed" ops@shop.example
}
trap 'fail $LINENO' ERR

mkdir -p "$DIR"

# Dump the database
log "dumping to $DUMP"
pg_dump --no-owner shop | gzip -9 > "$DUMP.part"
mv "$DUMP.part" "$DUMP"

# A dump that cannot be read is worse than none
gzip --test "$DUMP"
SIZE=$(stat -c %s "$DUMP")
if [ "$SIZE" -lt 1000 ]; then
    log "only $SIZE bytes: that is no dump of ours"
    false
fi

# Uploads: only what has changed since the last time
rsync -a --delete /srv/shop/uploads/ "$DIR/uploads/"

# A copy on the other machine
rsync -a "$DUMP" "$DIR/uploads" backup@vault.shop.example:/srv/backups/shop/

# Remove what is older than $KEEP days
find "$DIR" -name 'shop-*.sql.gz' -mtime "+$KEEP" -print -delete

log "done: $SIZE bytes"
