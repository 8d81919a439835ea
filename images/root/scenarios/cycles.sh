# Children come and go, 200 times, at every moment of their lives: nothing of them stays behind, neither memory nor
# partitions nor workers nor names. Most are the test guest, which starts at once; each tenth is a Linux.
. /etc/bulkhead/scenarios/lib.sh

cycles=200

# start CYCLE
start() {
    case $(($1 % 10)) in
        0) child cycle 2 shell ;;
        1) guest cycle 1 cpuid_discovery ;;
        2) guest cycle 4 triple_fault_other ;;
        *) guest cycle $(($1 % 4 + 1)) spin_forever ;;
    esac
}

# linger CYCLE: how long the child lives: not at all, until it has ended by itself, into its boot, until it is up.
linger() {
    case $(($1 % 10)) in
        0)
            case $(($1 / 10 % 8)) in
                0) wait_for 180 child_says cycle 'child: ready' ;;
                *) sleep $(($1 / 10 % 4)) ;;
            esac
            ;;
        1 | 2) wait_for 60 ended cycle ;;
        3) wait_for 60 child_says cycle begin ;;
        4) usleep $(($1 * 2000)) ;;
    esac
}

most=0
for cycle in $(seq $cycles); do
    start "$cycle" >/tmp/said 2>&1 || { fail cycles "cycle $cycle: $(tail -n 1 /tmp/said)"; exit; }
    linger "$cycle" || { fail cycles "cycle $cycle: $(state cycle); $(console cycle | tail -n 1)"; exit; }
    pages=$(hypervisor HvTotalPages)
    [ "$pages" -lt "$most" ] || most=$pages
    bulkhead destroy cycle >/tmp/said 2>&1 || { fail cycles "cycle $cycle: $(tail -n 1 /tmp/said)"; exit; }
    [ $((cycle % 20)) != 0 ] || echo "cycles: $cycle done, the hypervisor has $(hypervisor HvTotalPages) pages"
    # By now each kind has been there once: what the root and the hypervisor keep to use again is there.
    [ "$cycle" != 20 ] || { before=$(free_memory) pages_before=$(hypervisor HvTotalPages); }
done
ok cycles
echo "cycles: the hypervisor had $pages_before pages before, $most at most, and has $(hypervisor HvTotalPages)"
if [ "$most" -gt "$pages_before" ]; then ok cycles-deposits; else fail cycles-deposits "no page was ever deposited"; fi
check cycles-pages has HvTotalPages "$pages_before"
check cycles-partitions has HvPartitions 1
check cycles-processors has HvVirtualProcessors "$(nproc)"
sleep 1
lost=$((before - $(free_memory)))
if [ "$lost" -lt 32 ]; then ok cycles-memory; else fail cycles-memory "$lost MiB have not come back in $cycles cycles"; fi
if pidof bulkhead-worker >/dev/null; then fail cycles-workers "a worker is left"; else ok cycles-workers; fi
