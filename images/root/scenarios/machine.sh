# The machine as the root sees it: all processors are there and run, interrupts come to each of them, time
# passes, and the kernel complains about nothing.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

online=$(nproc)
if [ "$online" = "$TEST_CPUS" ]; then ok processors; else fail processors "$online of $TEST_CPUS are online"; fi

# Each processor runs a piece of work that is bound to it.
seen=0
for cpu in $(seq 0 $((TEST_CPUS - 1))); do
    [ "$(taskset -c "$cpu" awk '{ print $39 }' /proc/self/stat)" = "$cpu" ] && seen=$((seen + 1))
done
if [ "$seen" = "$TEST_CPUS" ]; then ok work-on-each; else fail work-on-each "work ran on $seen of $TEST_CPUS"; fi

# Each processor's own timer interrupts it.
ticks() { awk '/^ *(LOC|HVS):/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum[i] += $i } END { for (i = 2; i in sum; i++) printf "%s ", sum[i] }' /proc/interrupts; }
before=$(ticks)
for cpu in $(seq 0 $((TEST_CPUS - 1))); do
    # An idle processor needs no timer: the sleep arms one.
    taskset -c "$cpu" sleep 0.2
done
after=$(ticks)
still=$(echo "$before|$after" | awk -F'|' '{ n = split($1, b, " "); split($2, a, " "); for (i = 1; i <= n; i++) still += a[i] == b[i]; print still + 0 }')
if [ "$still" = 0 ]; then ok timers; else fail timers "the timers of $still processors stand still: $after"; fi

# The wall clock, the monotonic clock and the processors' counters agree on how long two seconds are.
begin=$(awk '{ print int($1 * 100) }' /proc/uptime)
wall=$(date +%s)
sleep 2
hundredths=$(($(awk '{ print int($1 * 100) }' /proc/uptime) - begin))
seconds=$(($(date +%s) - wall))
if [ "$hundredths" -ge 200 ] && [ $((hundredths / 100 - seconds)) -le 1 ] && [ $((seconds - hundredths / 100)) -le 1 ]; then
    ok clocks
else
    fail clocks "two seconds were $hundredths hundredths by uptime, $seconds seconds by date"
fi

# The root is offered no synthetic timers and says so; it uses the processor's own.
complaints=$(dmesg | grep -iE 'hyper-?v|hypervisor|mshv|hypercall|No irq handler|unchecked MSR|Call Trace|unstable' |
    grep -v 'stimer setup failed' |
    grep -iE 'error|fail|unable|cannot|unsupported|unstable|warning|bug|invalid|stuck|No irq|unchecked|Call Trace')
if [ -z "$complaints" ]; then ok no-complaints; else fail no-complaints "$(echo "$complaints" | head -n 3 | tr '\n' ' ')"; fi
