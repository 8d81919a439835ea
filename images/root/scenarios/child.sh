# A child with as many processors as the machine: it boots, sees the hypervisor and all its processors, and goes
# off by itself; the root then has its memory back.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

before=$(free_memory)
check child-start child one "$TEST_CPUS" poweroff
if wait_child one 180 child-report; then
    report=$(console one | sed -n '/child: /p')
    echo "$report"
    case "$report" in *", $TEST_CPUS processors"*) ok child-processors ;; *) fail child-processors "see above" ;; esac
    case "$report" in *"hypervisor: Microsoft"*) ok child-hypervisor ;; *) fail child-hypervisor "see above" ;; esac
fi
check child-off wait_for 60 has_state one stopped
check child-destroy bulkhead destroy one
sleep 1
lost=$((before - $(free_memory)))
if [ "$lost" -lt 32 ]; then ok child-memory; else fail child-memory "$lost MiB have not come back"; fi
# The hypervisor's log, which the root reads in the hypervisor's memory.
check hypervisor-log sh -c "bulkhead log | grep 'root: kernel at'"
