# The root's own drivers run the machine's devices: data read from each disk is what the host put there, data
# written is what is read back, packets go out and come in, and all of it by interrupts.
. /etc/bulkhead/scenarios/lib.sh
. /etc/bulkhead/test.conf

# disk NAME DEVICE WORD
disk() {
    name=$1 device=$2 before=$(interrupts "$3")
    if [ ! -b "$device" ]; then
        fail "$name-read" "there is no $device"
        return
    fi
    sum=$(dd if="$device" bs=1M 2>/dev/null | sha256sum | cut -d' ' -f1)
    if [ "$sum" = "$TEST_DISK_SHA256" ]; then ok "$name-read"; else fail "$name-read" "the content's SHA-256 is $sum"; fi
    dd if=/dev/urandom of=/tmp/pattern bs=64K count=64 2>/dev/null
    dd if=/tmp/pattern of="$device" bs=64K seek=16 conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if="$device" bs=64K skip=16 count=64 2>/dev/null | check "$name-write" cmp - /tmp/pattern
    more_interrupts "$name-interrupts" "$3" "$before"
}

# nic NAME DRIVER
nic() {
    for path in /sys/class/net/*; do
        [ "$(basename "$(readlink "$path/device/driver")")" = "$2" ] || continue
        interface=$(basename "$path")
        case "$2" in virtio_net) word=$(basename "$(readlink "$path/device")") ;; *) word=$interface ;; esac
        before=$(interrupts "$word")
        ip link set "$interface" up
        check "$1-dhcp" udhcpc -n -q -f -t 10 -T 2 -i "$interface" -s /etc/bulkhead/scenarios/lease.sh
        check "$1-ping" ping -c 5 -W 10 -I "$interface" 10.0.2.2
        more_interrupts "$1-interrupts" "$word" "$before"
        ip addr flush dev "$interface"
        ip link set "$interface" down
        return
    done
    fail "$1-dhcp" "no network device has the driver $2"
}

disk virtio-blk /dev/vda virtio
disk nvme /dev/nvme0n1 nvme
disk ahci /dev/sda ahci
nic virtio-net virtio_net
nic e1000e e1000e
