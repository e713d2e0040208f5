# What every step of the torture tests does: say in the ledger that it begins, do something, say that it ends.
#
#     sh step.sh [STATUS]        ends with STATUS (0)
#
# The ledger is the truth outside of agentrun: one line a write, appended and synced before anything else happens.
# TIMES: ends with 7 in the first TIMES attempts. WORK: a command in the middle. The lock tells of two at once.
exec 9>> "$TORTURE/locks/$AGENTRUN_RUN_ID.$AGENTRUN_STEP"
say() {
    printf '%s %s %s %s %s %s %s\n' "$1" "$AGENTRUN_RUN_ID" "$AGENTRUN_STEP" "$AGENTRUN_ATTEMPT" \
        "$AGENTRUN_IDEMPOTENCY_KEY" "$$" "$2" >> "$TORTURE/ledger"
    sync "$TORTURE/ledger" 9>&-
}
flock -n 9 || say overlap -
say begin "$AGENTRUN_INTERRUPTED"
echo "begin $AGENTRUN_STEP#$AGENTRUN_ATTEMPT"
status=${1:-0}
if [ -n "${TIMES:-}" ]; then
    failed=$(grep -c "^end $AGENTRUN_RUN_ID $AGENTRUN_STEP .* 7\$" "$TORTURE/ledger" 9>&-) || true
    if [ "$failed" -lt "$TIMES" ]; then status=7; fi
fi
if [ -n "${WORK:-}" ]; then eval "$WORK"; fi
echo "end $AGENTRUN_STEP#$AGENTRUN_ATTEMPT"
say end "$status"
exit "$status"
