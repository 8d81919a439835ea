# What the options of `cargo xtask run` ask for is there, in the machine and the root; the child's own report shows the
# others. The test `options` calls it with all of them.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/demo.conf

# is NAME VALUE WANTED
is() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "it is $2 instead of $3"; fi; }

is option-cpus "$(nproc)" 2
memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
if [ "$memory" -gt 1800 ] && [ "$memory" -lt 2048 ]; then ok option-memory; else fail option-memory "$memory MiB"; fi
is option-scratch-disk "$(cat /sys/block/nvme0n1/size)" 65536
is option-disk "$(head -c 4 /dev/vda)" ZZZZ
is option-nic "$(basename "$(readlink /sys/class/net/eth0/device/driver)")" e1000e
is option-overlay "$(cat /etc/bulkhead/overlay)" 'laid over'
is option-file "$(wc -c </etc/garbage)" 20000
is option-cmdline "$(tr ' ' '\n' </proc/cmdline | grep bulkhead.option)" bulkhead.option=17

. /etc/bulkhead/scenarios/demo.sh
