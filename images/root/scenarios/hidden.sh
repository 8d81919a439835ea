# A child from which the hypervisor is hidden runs as on a bare machine: it finds none, has all its processors at
# work, is interrupted by its local APICs' timers, and goes off by itself.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

# timers: the local APICs' timers interrupt each processor, and nothing of the hypervisor's does.
timers() {
    console one | awk -v vps="$TEST_CPUS" '
        /interrupts LOC:/ { for (cpu = 1; cpu <= vps; cpu++) used += $(3 + cpu) > 0 }
        /interrupts H/ { for (cpu = 1; cpu <= vps; cpu++) foreign += $(3 + cpu) }
        END { exit !(used == vps && foreign == 0) }'
}

check hidden-start child one "$TEST_CPUS" poweroff '' --no-enlightenments
wait_child one 240 hidden-report && console one | sed -n '/child: /p'
says one ", $TEST_CPUS processors" hidden-processors
says one "work on $TEST_CPUS processors" hidden-work
says one 'hypervisor: none' hidden-hypervisor
if child_says one Hyper-V; then fail hidden-nothing "the child has found Hyper-V"; else ok hidden-nothing; fi
check hidden-interrupts timers
check hidden-off wait_for 60 has_state one stopped
check hidden-destroy bulkhead destroy one
