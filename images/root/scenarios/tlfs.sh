# The test guest proves the interface from inside, one case per boot: `CASE name: ok` on its console, or why not. A
# case of the kind `fault` ends by a triple fault that its worker tells of, one of the kind `hang` runs until it is
# stopped; neither may hurt the root or the guest that runs all the while beside them. `bulkhead.cases=A,B` on the
# kernel's command line chooses cases, `bulkhead.rounds=N` runs them N times.
. /etc/bulkhead/scenarios/lib.sh

exceptions=/etc/bulkhead/tlfs.exceptions
parameter() { tr ' ' '\n' </proc/cmdline | sed -n "s/^bulkhead\.$1=//p" | tail -n 1; }
chosen=$(parameter cases | tr ',' ' ')
rounds=$(parameter rounds)

# said NAME CASE: what the guest said of the case, without its name.
said() { console "$1" 2>/dev/null | sed -n "s/^CASE $2: //p; s/^CASE guest: //p" | tail -n 1; }

# reports NAME CASE: the case has come to an end.
reports() {
    wait_for 45 ended "$1"
    result=$(said "$1" "$2")
    case "$result" in
        ok) ok "tlfs/$2" ;;
        skipped*) echo "tlfs/$2 does not apply: ${result#skipped }" ;;
        *) fail "tlfs/$2" "${result:-nothing was said}; state $(state "$1"); $(bulkhead wait "$1" 2>&1 | tail -n 1)" ;;
    esac
}

# faults NAME CASE: the machine has failed by a triple fault, and the worker says so.
faults() {
    wait_for 60 ended "$1"
    if why=$(bulkhead wait "$1" 2>&1); then
        fail "tlfs/$2" "the machine has not failed: $why"
    else
        case "$why" in *"triple fault"*) ok "tlfs/$2" ;; *) fail "tlfs/$2" "the reason is: $why" ;; esac
    fi
}

# hangs NAME CASE: the machine runs, leaves the root alone, and ends when it is told to.
hangs() {
    wait_for 60 child_says "$1" "CASE $2: begin"
    sleep 3
    if [ "$(state "$1")" = running ] && bulkhead stop --force "$1" && wait_for 30 ended "$1"; then
        ok "tlfs/$2"
    else
        fail "tlfs/$2" "state $(state "$1"); $(said "$1" "$2")"
    fi
}

guest list 1 list || { fail tlfs "the guest does not start"; exit; }
wait_for 60 ended list
console list | sed -n 's/^LIST //p' >/tmp/cases
bulkhead destroy list
count=$(wc -l </tmp/cases)
if [ "$count" -gt 0 ]; then ok tlfs; else fail tlfs "the guest lists no cases"; fi

# beats: for how many seconds the neighbour has said that all is well.
beats() { console neighbour | sed -n 's/^CASE neighbour: alive //p' | tail -n 1; }

# beats_more COUNT
beats_more() { [ "$(beats)" -gt "${1:-0}" ]; }

# run CASE VPS KIND
run() {
    reason=$(grep -v '^#' $exceptions 2>/dev/null | sed -n "s/^$1: //p")
    if [ -n "$reason" ]; then
        echo "tlfs/$1 is excepted: $reason"
        return
    fi
    if said=$(guest tlfs "$2" "$1" 2>&1); then
        case $3 in
            report) reports tlfs "$1" ;;
            fault) faults tlfs "$1" ;;
            hang) hangs tlfs "$1" ;;
        esac
    else
        fail "tlfs/$1" "the guest does not start: $(echo "$said" | tail -n 1)"
    fi
    bulkhead destroy tlfs >/dev/null 2>&1
}

check tlfs-neighbour-start guest neighbour 2 neighbour
for round in $(seq "${rounds:-1}"); do
    while read -r case vps kind what; do
        [ "$case" != neighbour ] || continue
        [ -z "$chosen" ] || case " $chosen " in *" $case "*) ;; *) continue ;; esac
        run "$case" "$vps" "$kind" </dev/null
    done </tmp/cases
done

if wait_for 30 beats_more "$(beats)" && [ "$(state neighbour)" = running ]; then
    ok tlfs/neighbour
else
    fail tlfs/neighbour "state $(state neighbour); $(console neighbour | tail -n 2 | tr '\n' ' ')"
fi
bulkhead destroy neighbour >/dev/null 2>&1
