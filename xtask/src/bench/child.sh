# The benchmark program as a child: its console is ours until it switches itself off.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/bench.conf

# The daemon starts beside us.
listens() { bulkhead list >/dev/null 2>&1; }
check bench-daemon wait_for 30 listens

images=/var/lib/bulkhead/images
check bench-create bulkhead create bench --vps "$CPUS" --memory "$MEMORY" --kernel $images/vmlinuz \
    --initramfs $images/initramfs --cmdline "$CMDLINE"
echo "BENCH start"
bench mark begin 0
check bench-start bulkhead start bench
bulkhead console bench --follow

# Only a machine that is off has come to its end.
wait_for 10 has_state bench stopped || {
    bulkhead show bench
    tail -n 20 /var/log/bulkheadd.log
}
