# What every step of the jobs here does: say in the ledger that it begins, wait where it is told to, say that it ends.
#
# The ledger is the truth outside of agentrun: one line a write, appended and synced before anything else happens.
# now: the time as the test set it. hold.JOB names a FIFO at which step `a` of that job waits, after it made `reached`.
unset LD_PRELOAD
say() {
    at=$(cat "$TORTURE/now" 2>/dev/null) || at=
    printf '%s %s %s %s %s %s %s %s\n' "$1" "$AGENTRUN_JOB" "${AGENTRUN_SCHEDULED_TIME:--}" "$AGENTRUN_RUN_ID" \
        "$AGENTRUN_STEP" "$AGENTRUN_ATTEMPT" "$AGENTRUN_IDEMPOTENCY_KEY" "${at:-$(date +%s)}" >> "$TORTURE/ledger"
    sync "$TORTURE/ledger"
}
say begin
if [ "$AGENTRUN_STEP" = a ] && read -r fifo 2>/dev/null < "$TORTURE/hold.$AGENTRUN_JOB"; then
    : > "$fifo.reached"
    read -r _ < "$fifo"
fi
say end
