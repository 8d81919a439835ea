# What cannot be done is refused in one line that names the thing and what to do, and with a status that is not 0.
. /etc/bulkhead/scenarios/lib.sh

kernel=/var/lib/bulkhead/images/vmlinuz

# refuses NAME THING ADVICE ARGUMENT...: ok if `bulkhead` does so, in one line with both words.
refuses() {
    name=$1 thing=$2 advice=$3
    shift 3
    if said=$(bulkhead "$@" 2>&1); then
        fail "$name" "bulkhead $* succeeds and says: $said"
        bulkhead destroy x >/dev/null 2>&1
        return
    fi
    echo "$name: $said"
    case "$said" in
        *"
"*) fail "$name" "more than one line: $said" ;;
        *"$thing"*"$advice"*) ok "$name" ;;
        *) fail "$name" "it names not both, $thing and $advice: $said" ;;
    esac
}

head -c 1000000 /dev/urandom >/tmp/garbage
head -c 3000000 $kernel >/tmp/short

refuses missing-kernel /tmp/none --kernel create x --kernel /tmp/none
refuses garbage-kernel /tmp/garbage --kernel create x --kernel /tmp/garbage
refuses cut-off-kernel /tmp/short 'copy it again' create x --kernel /tmp/short
refuses no-kernel --kernel 'bulkhead help' create x
refuses missing-initramfs /tmp/none --initramfs create x --kernel $kernel --initramfs /tmp/none
refuses little-memory '40 MiB' --memory create x --kernel $kernel --memory 40
refuses tiny-memory '1 MiB' --memory create x --kernel $kernel --memory 1
refuses huge-memory '99999999 MiB' --memory create x --kernel $kernel --memory 99999999
refuses no-vps '0 virtual processors' --vps create x --kernel $kernel --vps 0
refuses many-vps '300 virtual processors' --vps create x --kernel $kernel --vps 300
refuses odd-vps many 'bulkhead help' create x --kernel $kernel --vps many
refuses long-cmdline 'command line' 'at most' create x --kernel $kernel --cmdline "$(head -c 3000 /dev/zero | tr '\0' x)"
refuses odd-name a/b 'bulkhead help' create a/b --kernel $kernel
refuses missing-disk /tmp/none --disk create x --kernel $kernel --memory 384 --disk /tmp/none
refuses folder-disk /tmp --disk create x --kernel $kernel --memory 384 --disk /tmp,ro
mkfifo /tmp/pipe
refuses pipe-disk /tmp/pipe --disk create x --kernel $kernel --memory 384 --disk /tmp/pipe,ro
: >/tmp/empty
refuses empty-disk /tmp/empty 'truncate -s' create x --kernel $kernel --memory 384 --disk /tmp/empty
refuses hidden-disk 'hypervisor is hidden' --disk create x --kernel $kernel --disk /tmp/garbage --no-enlightenments
refuses unknown-option --frob 'bulkhead help' create x --frob
refuses unknown-command frob 'bulkhead help' frob
for command in start stop destroy show wait console; do
    refuses "unknown-$command" nobody 'bulkhead list' $command nobody
done
refuses no-daemon /tmp/control.sock 'start bulkheadd' --run-dir /tmp list

check taken-create bulkhead create taken --kernel $kernel
refuses taken-name taken 'bulkhead destroy taken' create taken --kernel $kernel
refuses not-running taken 'bulkhead start taken' stop taken
refuses not-running-console taken 'bulkhead start taken' console taken
bulkhead destroy taken
# Nothing of all that was created.
count=$(bulkhead list | wc -l)
if [ "$count" = 1 ]; then ok refusals; else fail refusals "$(bulkhead list | tail -n 1) is there"; fi
check refusals-partitions has HvPartitions 1
