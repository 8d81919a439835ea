# Children with as many processors as TEST_VPS names, one after the other: each boots, finds the hypervisor's
# interface and uses it, has all its processors at work, and goes off by itself; the root then has its memory back.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

# uses NAME VPS: what only a kernel says that has found the interface and uses it.
uses() {
    says "$1" 'hypervisor: Microsoft Hyper-V' "child-hypervisor-$2"
    says "$1" 'clock source: hyperv_clocksource_tsc_page' "child-clock-$2"
    says "$1" 'clock event device: Hyper-V clockevent' "child-timer-$2"
    [ "$2" != 1 ] || return
    says "$1" 'Hyper-V: Using hypercall for remote TLB flush' "child-flush-$2"
    says "$1" 'Hyper-V: Using IPI hypercalls' "child-ipi-$2"
    says "$1" 'Hyper-V: PV spinlocks enabled' "child-spin-$2"
}

# timers NAME VPS: interrupts of the hypervisor's timers came to each processor, and none of the local APICs'.
timers() {
    console "$1" | awk -v vps="$2" '
        /interrupts HVS:/ { for (cpu = 1; cpu <= vps; cpu++) used += $(3 + cpu) > 0 }
        /interrupts LOC:/ { for (cpu = 1; cpu <= vps; cpu++) local += $(3 + cpu) }
        END { exit !(used == vps && local == 0) }'
}

before=$(free_memory)
for vps in $TEST_VPS; do
    child one "$vps" poweroff >/tmp/said 2>&1 || { fail "child-$vps" "$(tail -n 1 /tmp/said)"; exit; }
    if wait_child one 240 "child-$vps"; then
        console one | sed -n '/child: /p'
        says one ", $vps processors" "child-processors-$vps"
        says one "work on $vps processors" "child-work-$vps"
        uses one "$vps"
        check "child-interrupts-$vps" timers one "$vps"
    fi
    check "child-off-$vps" wait_for 60 has_state one stopped
    check "child-destroy-$vps" bulkhead destroy one
    check "child-gone-$vps" has HvPartitions 1
done
sleep 1
lost=$((before - $(free_memory)))
if [ "$lost" -lt 32 ]; then ok child-memory; else fail child-memory "$lost MiB have not come back"; fi
# The hypervisor's log, which the root reads in the hypervisor's memory.
check hypervisor-log sh -c "bulkhead log | grep 'root: kernel at'"
