# A child with three synthetic disks, of sizes that are not round: a file, a disk of the root, and a file that may only be
# read. Its stock driver finds them, what it writes is in the root's file and on the root's disk, also after it has restarted,
# a flush of its goes down to the root's disk, and the one that may only be read stays as it was.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

disks=/tmp/disks
mkdir -p $disks
truncate -s $((24 * 1048576 + 3 * 512)) $disks/first
head -c $((12 * 1048576 + 512)) /dev/urandom >$disks/third
third=$(sha256sum <$disks/third)

# sum FILE
sum() { sha256sum <"$1" | cut -d' ' -f1; }

# flushes: how many flushes the root's disk has done (Linux Documentation/block/stat.rst, column 16).
flushes() { awk '{ print $16 }' /sys/block/vda/stat; }

# exits NAME: of the child, in the worker.
exits() { bulkhead list | awk -v name="$1" '$1 == name { print $(NF - 1) }'; }

flushes_before=$(flushes)
child one "$TEST_VPS" disks "$TEST_SUFFIX" --disk $disks/first --disk /dev/vda --disk $disks/third,ro >/tmp/said 2>&1 ||
    { fail disks-start "$(tail -n 1 /tmp/said)"; exit; }
# await SECONDS TEXT: waits until the child says so; if it does not, what is known of it is printed, and that was it.
said_or_ended() { child_says one "$1" || ended one; }
await() {
    wait_for "$1" said_or_ended "$2"
    child_says one "$2" && return
    console one | tail -n 40
    bulkhead show one
    for thread in /proc/"$(pidof bulkhead-worker)"/task/*; do echo "$(cat "$thread/comm"): $(cat "$thread/wchan" 2>/dev/null)"; done
    tail -n 20 /var/log/bulkheadd.log
    fail disks-done "the child has not said: $2 ($(state one))"
    exit
}

await 180 'disks written'
await 180 'depth 1 begins'
exits_before=$(exits one)
await 60 'depth 1 ends'
exits_after=$(exits one)
await 120 'disks done'
ok disks-done
console one | grep -E 'child: (disk|channels|signals|[0-9]+ reads)|hv_vmbus: Vmbus'
bulkhead show one
says one 'disk 0: 49155 sectors, read-only 0' disks-file-size
says one "disk 1: $(cat /sys/block/vda/size) sectors, read-only 0" disks-device-size
says one 'disk 2: 24577 sectors, read-only 1' disks-read-only-size
says one 'disk 0 reads what was written: right' disks-file
says one 'disk 1 reads what was written: right' disks-device
says one 'disk 2 refuses a write' disks-read-only
says one "disk 2 holds $(sum $disks/third)" disks-read
says one "channels of the controller: $TEST_CHANNELS" disks-channels
says one 'signals come to processor 1' disks-retarget
says one "disk 0, taken again, holds $(sum $disks/first)" disks-again
says one "channels, opened again: $TEST_CHANNELS" disks-channels-again
check disks-off wait_for 60 has_state one stopped
# Those that the child asked for, and none of what follows.
flushes_after=$(flushes)
sync
echo 3 >/proc/sys/vm/drop_caches
says one "disk 0 holds $(sum $disks/first)" disks-file-kept
says one "disk 1 holds $(sum /dev/vda)" disks-device-kept
if [ "$flushes_after" -gt "$flushes_before" ]; then ok disks-flush; else fail disks-flush "the root's disk has done no flush"; fi
if [ "$(sha256sum <$disks/third)" = "$third" ]; then ok disks-untouched; else fail disks-untouched "the third disk has changed"; fi
grep -o 'channel .*' /var/log/bulkheadd.log
# The exits are those of the serial port, by which the child says that it is done.
echo "disks: 2000 reads of 4 KiB at depth 1 cost $((exits_after - exits_before)) exits to the worker"
check disks-destroy bulkhead destroy one
check disks-gone has HvPartitions 1
