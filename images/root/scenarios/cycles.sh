# Children come and go: nothing of them stays behind, neither memory nor workers nor names.
. /etc/bulkhead/scenarios/lib.sh

cycles=10
before=''
for cycle in $(seq $cycles); do
    child "cycle-$cycle" 2 shell >/tmp/said 2>&1 || { fail cycles "cycle $cycle: $(tail -n 1 /tmp/said)"; exit; }
    # Some are destroyed at once, some in the middle of their boot, some when they are up.
    case $((cycle % 3)) in 1) sleep 2 ;; 2) wait_for 120 child_says "cycle-$cycle" 'child: ready' ;; esac
    bulkhead destroy "cycle-$cycle" >/tmp/said 2>&1 || { fail cycles "cycle $cycle: $(tail -n 1 /tmp/said)"; exit; }
    # The first cycle may leave caches behind that the others use again.
    [ -n "$before" ] || { sleep 1; before=$(free_memory); }
done
ok cycles
sleep 1
lost=$((before - $(free_memory)))
if [ "$lost" -lt 32 ]; then ok cycles-memory; else fail cycles-memory "$lost MiB have not come back in $cycles cycles"; fi
if pidof bulkhead-worker >/dev/null; then fail cycles-workers "a worker is left"; else ok cycles-workers; fi
