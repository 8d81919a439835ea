# A child works all its processors hard, by timers, wake-ups of one another, page faults and flushes, for
# TEST_SECONDS; all it found was right, and it answers afterwards. So does another that was idle all the while.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

# The child's file system, with the program that does it.
images=/var/lib/bulkhead/images
mkdir -p /tmp/more/bin
cp /usr/lib/bulkhead/tests/bench /tmp/more/bin
(cat $images/initramfs && cd /tmp/more && echo bin/bench | cpio -o -H newc 2>/dev/null) >$images/initramfs-more
ln -s vmlinuz $images/vmlinuz-more

# answers NAME WORD RESULT: ok if a command that is typed on the child's console is carried out.
answers() {
    # A carriage return is what a terminal's Enter key sends, and 0x1d, Ctrl-], detaches.
    printf '\recho %s $((40 + 2))\r\035' "$2" | timeout 10 bulkhead console "$1" >/dev/null
    check "$3" wait_for 60 child_says "$1" "$2 42"
}

# grown WORD: the interrupts of this kind became more at each of the four processors.
grown() {
    console busy | awk -v word="$1:" -v vps=4 '
        $2 == "interrupts" && $3 == word { for (cpu = 1; cpu <= vps; cpu++) before[cpu] = $(3 + cpu) }
        $2 == "afterwards" && $3 == word { for (cpu = 1; cpu <= vps; cpu++) more += $(3 + cpu) > before[cpu] }
        END { exit more != vps }'
}

check stress-start child busy 4 "stress bulkhead.seconds=$TEST_SECONDS" -more
check stress-idle-start child idle 2 shell
wait_child busy 180 stress-begin
# It says how it got on, or stops running.
over() { child_says busy 'child: stressed' || ended busy; }
wait_for $((3 * TEST_SECONDS + 120)) over
console busy | sed -n '/child: /p'
says busy "all 4 processors worked for $TEST_SECONDS s" stress
check stress-timers grown HVS
check stress-wakeups grown RES
check stress-calls grown CAL
answers busy busy stress-answer
answers idle idle stress-idle-answer
bulkhead list
check stress-destroy bulkhead destroy busy
check stress-idle-destroy bulkhead destroy idle
