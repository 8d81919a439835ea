# Whoever is killed leaves nothing behind: neither a worker nor the daemon, whose workers end with it. The partitions
# are gone, memory is back, the names are free, and other children do not notice.
. /etc/bulkhead/scenarios/lib.sh

# pid NAME: the process id of the child's worker.
pid() { bulkhead show "$1" --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }

# returned PAGES: only the root is left, and the hypervisor has as many pages as before.
returned() { has HvPartitions 1 && has HvTotalPages "$1"; }

# What is kept for two children, to use again, is there afterwards.
check killed-first guest first 2 neighbour
check killed-first guest second 2 neighbour
bulkhead destroy first
bulkhead destroy second
pages=$(hypervisor HvTotalPages) before=$(free_memory)

check killed-start guest victim 2 neighbour
check killed-partition has HvPartitions 2
kill -9 "$(pid victim)"
check killed-state wait_for 30 has_state victim failed
why=$(timeout 30 bulkhead wait victim 2>&1)
case "$why" in *"killed by signal 9"*) ok killed-reason ;; *) fail killed-reason "the reason is: $why" ;; esac
check killed-pages wait_for 30 returned "$pages"
check killed-again guest victim 2 neighbour
check killed-alive wait_for 60 child_says victim 'alive 1'
kill -9 "$(pid victim)"
wait_for 30 has_state victim failed
check killed-destroy bulkhead destroy victim

check killed-both guest one 2 neighbour
check killed-both guest two 2 neighbour
kill -9 "$(pidof bulkheadd)"
no_workers() { ! pidof bulkhead-worker >/dev/null; }
check killed-workers wait_for 30 no_workers
check killed-all-pages wait_for 30 returned "$pages"
if said=$(bulkhead list 2>&1); then
    fail killed-list "it said: $said"
else
    case "$said" in *"start bulkheadd"*) ok killed-list ;; *) fail killed-list "it said: $said" ;; esac
fi
bulkheadd >>/var/log/bulkheadd.log 2>&1 &
check killed-daemon wait_for 30 bulkhead list
if [ -z "$(state one)" ]; then ok killed-names; else fail killed-names "one is $(state one)"; fi
check killed-new guest one 2 neighbour
check killed-new-alive wait_for 60 child_says one 'alive 1'
check killed-new-destroy bulkhead destroy one
sleep 1
lost=$((before - $(free_memory)))
if [ "$lost" -lt 16 ]; then ok killed-memory; else fail killed-memory "$lost MiB have not come back"; fi
