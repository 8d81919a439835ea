# Messages and events between the root and children of a test program of our own, one partition for each case.
. /etc/bulkhead/scenarios/lib.sh

if [ ! -c /dev/mshv ]; then
    fail signals "there is no /dev/mshv"
    exit
fi
timeout 120 /usr/lib/bulkhead/tests/signals >/tmp/out 2>&1
status=$?
while read -r _ case verdict; do
    if [ "$verdict" = ok ]; then ok "signals/${case%:}"; else fail "signals/${case%:}" "$verdict"; fi
done <<CASES
$(grep '^CASE ' /tmp/out)
CASES
if [ $status = 0 ]; then ok signals; else fail signals "status $status: $(tail -n 3 /tmp/out | tr '\n' ' ')"; fi
