# The tests of the crate mshv-ioctls, one by one: a client of /dev/mshv that was not written for this hypervisor.
. /etc/bulkhead/scenarios/lib.sh

suite=/usr/lib/bulkhead/tests/mshv-ioctls
exceptions=/etc/bulkhead/mshv-ioctls.exceptions

if [ ! -c /dev/mshv ]; then
    fail mshv-ioctls "there is no /dev/mshv"
    exit
fi
run=0
for test in $($suite --list 2>/dev/null | sed -n 's/: test$//p'); do
    reason=$(grep -v '^#' "$exceptions" | sed -n "s/^$test: //p")
    if [ -n "$reason" ]; then
        echo "mshv-ioctls: $test does not apply: $reason"
        continue
    fi
    run=$((run + 1))
    if timeout 60 "$suite" --test-threads=1 --nocapture --exact "$test" >/tmp/out 2>&1; then
        ok "$test"
    else
        fail "$test" "status $?: $(grep -v '^$' /tmp/out | grep -A2 panicked | tail -n 3 | tr '\n' ' ')"
    fi
done
if [ "$run" -gt 0 ]; then ok mshv-ioctls; else fail mshv-ioctls "the suite has no tests"; fi
