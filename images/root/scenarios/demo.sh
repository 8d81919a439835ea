# The demonstration: what the root is, and a child beside it, each in its own words.
. /etc/bulkhead/scenarios/lib.sh

echo
echo "root: Linux $(uname -r), $(nproc) processors, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
dmesg | grep -iE 'hyper-v|hypervisor|mshv' | head -n 20 | sed 's/^/root: /'

if [ ! -f /etc/bulkhead/demo.conf ]; then
    ok demo-root
    exit
fi
if [ ! -c /dev/mshv ]; then
    fail demo-root "there is no /dev/mshv: the root kernel needs CONFIG_MSHV_ROOT=y and a hypervisor; dmesg says more"
    exit
fi
ok demo-root

. /etc/bulkhead/demo.conf
images=/var/lib/bulkhead/images
# The disks for the child are the last of the root's.
CHILD_DISKS=0
[ ! -f /etc/bulkhead/child-disks.conf ] || . /etc/bulkhead/child-disks.conf
set --
for disk in $(ls /sys/block | grep '^vd' | tail -n "$CHILD_DISKS"); do set -- "$@" --disk "/dev/$disk"; done
check demo-create bulkhead create demo "$@" --vps "$CHILD_VPS" --memory "$CHILD_MEMORY" --kernel $images/vmlinuz \
    --initramfs $images/initramfs --cmdline "$CHILD_CMDLINE"
check demo-start bulkhead start demo

# The child's report ends with `ready`.
wait_child demo 180 demo-child && console demo | sed -n '/child: /p'
bulkhead list
bulkhead show demo | grep '^  disk'

if [ "$THEN" != shell ]; then
    check demo-stop bulkhead stop demo
    # The button has worked if the child itself said its farewell.
    if console demo | grep -q 'Power down'; then ok demo-button; else fail demo-button "the child took no notice"; fi
    check demo-destroy bulkhead destroy demo
fi
