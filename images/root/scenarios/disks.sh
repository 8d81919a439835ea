# A child with three synthetic disks, of sizes that are not round, one of them read-only: it finds them with the sizes that
# they have, what it writes is what it reads and what the root then finds in the files, nobody writes the read-only
# one, and after a reset it finds them again as it left them.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

# sum FILE: of the 8 MiB that the child writes from 3 MiB on.
sum() { dd if="$1" bs=1M skip=3 count=8 2>/dev/null | sha256sum | cut -d' ' -f1; }

# written FILE NAME: whether the child has said the sum of what is in the file.
written() { child_says one "disk $2 has $(sum "$1")"; }

mkdir -p /tmp/disks
truncate -s $((48 * 1048576 + 3 * 512)) /tmp/disks/first
truncate -s $((16 * 1048576 + 4096)) /tmp/disks/second
head -c $((12 * 1048576 + 512)) /dev/urandom >/tmp/disks/third
before=$(sha256sum /tmp/disks/third)

check disks-start child one "$TEST_CPUS" disks '' \
    --disk /tmp/disks/first --disk /tmp/disks/second --disk /tmp/disks/third,ro
# It reports once before the reset and once after.
if wait_for 240 child_says one 'disks: kept'; then
    ok disks-kept
else
    fail disks-kept "the child has not found what it wrote ($(state one))"
    console one | tail -n 30
    tail -n 20 /var/log/bulkheadd.log
fi
console one | grep -E 'child: disk'
says one 'disk sda: 98307 sectors' disks-first
says one 'disk sdb: 32776 sectors' disks-second
says one 'disk sdc: 24577 sectors, read-only' disks-third
says one 'disk sdc refuses a write' disks-read-only
says one "disk sdc has $(sum /tmp/disks/third)" disks-read
check disks-written-first written /tmp/disks/first sda
check disks-written-second written /tmp/disks/second sdb
check disks-off wait_for 60 has_state one stopped
if [ "$(sha256sum /tmp/disks/third)" = "$before" ]; then ok disks-untouched; else fail disks-untouched "the read-only disk has changed"; fi
check disks-destroy bulkhead destroy one
check disks-gone has HvPartitions 1
