#!/bin/sh
# The figures of yesterday, by mail
set -e

YESTERDAY=$(date -d yesterday +%F)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PGDATABASE=shop

query() {
    psql --no-psqlrc --tuples-only --no-align --field-separator=, -c "$1"
}

# Turnover by country
query "select country, sum(cents) / 100.0 from orders where ordered::date = '$YESTERDAY' group by 1 order by 2 desc" \
    > "$WORK/turnover.csv"

# What was sent back
query "select reason, count(*) from returns where received::date = '$YESTERDAY' group by 1" > "$WORK/returns.csv"

ORDERS=$(query "select count(*) from orders where ordered::date = '$YESTERDAY'")
if [ "$ORDERS" -eq 0 ]; then
    echo "no orders on $YESTERDAY: no report"
    exit 0
fi

# Write it
{
    echo "Orders on $YESTERDAY: $ORDERS"
    echo
    echo "Turnover in EUR:"
    sed 's/,/: /; s/^/- /' "$WORK/turnover.csv"
    if [ -s "$WORK/returns.csv" ]; then
        echo
        echo "Sent back:"
        sed 's/,/: /; s/^/- /' "$WORK/returns.csv"
    fi
} > "$WORK/report.txt"

# Send it
mail -s "Shop: $YESTERDAY" figures@shop.example < "$WORK/report.txt"

# Keep it for the auditors
cp "$WORK/report.txt" "reports/$YESTERDAY.txt"
