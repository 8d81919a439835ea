# What the scenarios share: reporting results, and reading what the kernel says.

# ok NAME
ok() { echo "BULKHEAD-TEST $1: ok"; }

# fail NAME REASON
fail() { echo "BULKHEAD-TEST $1: fail $2"; }

# check NAME COMMAND...: ok if the command succeeds; its output is the reason if it does not.
check() {
    name=$1
    shift
    if said=$("$@" 2>&1); then ok "$name"; else fail "$name" "$* said: $(echo "$said" | tail -n 3 | tr '\n' ' ')"; fi
}

# interrupts WORD: how many interrupts /proc/interrupts counts, over all processors, in lines with the word.
interrupts() {
    awk -v word="$1" 'index($0, word) { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts
}

# more_interrupts NAME WORD BEFORE: ok if the count has grown.
more_interrupts() {
    now=$(interrupts "$2")
    if [ "$now" -gt "$3" ]; then ok "$1"; else fail "$1" "still $now interrupts of $2 in /proc/interrupts"; fi
}

# console NAME: what the child NAME has written so far.
console() { timeout 10 bulkhead console "$1" --dump | tr -d "\r"; }

# child_says NAME TEXT: whether the child NAME has written the text.
child_says() { console "$1" 2>/dev/null | grep -qF "$2"; }

# wait_for SECONDS COMMAND...: tries the command every second until it succeeds; says every 20 s that it waits, so
# that the machine does not seem to hang.
wait_for() {
    begin=$(seconds) limit=$1
    shift
    while ! "$@"; do
        waited=$(($(seconds) - begin))
        [ "$waited" -lt "$limit" ] || return 1
        [ $((waited % 20)) -ne 19 ] || echo "waiting for: $*"
        sleep 1
    done
}

# seconds: since the machine started.
seconds() { cut -d. -f1 /proc/uptime; }

# settled NAME: whether the child has reported, or never will.
settled() { child_says "$1" 'child: ready' || ! has_state "$1" running; }

# wait_child NAME SECONDS RESULT: ok if the child reports in time; its console and the daemon's log if it does not.
wait_child() {
    wait_for "$2" settled "$1"
    if child_says "$1" 'child: ready'; then
        ok "$3"
    else
        console "$1" | tail -n 20
        tail -n 10 /var/log/bulkheadd.log
        bulkhead list
        fail "$3" "the child has not reported ($(state "$1"), at most $2 s); its console's end and the daemon's log are above"
        return 1
    fi
}

# child NAME VPS MODE [SUFFIX [OPTION...]]: creates and starts a child that reports and then does what MODE says.
child() {
    images=/var/lib/bulkhead/images
    name=$1 vps=$2 mode=$3 suffix=$4
    shift $(($# > 4 ? 4 : $#))
    bulkhead create "$name" --vps "$vps" --memory 384 --kernel "$images/vmlinuz$suffix" \
        --initramfs "$images/initramfs$suffix" --cmdline "console=ttyS0 panic=-1 bulkhead.child=$mode" "$@" &&
        bulkhead start "$name"
}

# guest NAME VPS CASE: creates and starts the test guest.
guest() {
    bulkhead create "$1" --vps "$2" --memory 48 --kernel /usr/lib/bulkhead/tests/guest --cmdline "case=$3 vps=$2" &&
        bulkhead start "$1"
}

# says NAME TEXT RESULT: ok if the child NAME has written the text.
says() {
    if child_says "$1" "$2"; then ok "$3"; else fail "$3" "the child $1 has not said: $2"; fi
}

# state NAME: the state that `bulkhead list` shows for the child.
state() { bulkhead list | awk -v name="$1" '$1 == name { print $2 }'; }

# has_state NAME STATE
has_state() { [ "$(state "$1")" = "$2" ]; }

# ended NAME: whether the child does not run any more.
ended() { case "$(state "$1")" in stopped | failed) true ;; *) false ;; esac; }

# hypervisor COUNTER: a figure of the hypervisor about itself, such as HvPartitions; HvTotalPages are those that were
# deposited and not withdrawn, and those it has from the start.
hypervisor() { sed -n "s/^$1 *: *//p" /sys/kernel/debug/mshv/stats; }

# has COUNTER VALUE
has() { [ "$(hypervisor "$1")" = "$2" ]; }

# free_memory: the root's free memory in MiB, with what caches hold given back first.
free_memory() {
    echo 3 >/proc/sys/vm/drop_caches
    awk '/MemFree/ { print int($2 / 1024) }' /proc/meminfo
}
