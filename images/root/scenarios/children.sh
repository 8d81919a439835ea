# Debian's stock cloud kernels of several years boot as children, each from its package, all at the same time.
. /etc/bulkhead/scenarios/lib.sh

kernels=$(ls /var/lib/bulkhead/images | sed -n 's/^vmlinuz-//p')
for series in $kernels; do
    check "start-$series" child "linux-$series" 2 shell "-$series"
done
for series in $kernels; do
    wait_child "linux-$series" 240 "boot-$series" && console "linux-$series" | sed -n "/child: Linux/s/^/$series: /p"
done
bulkhead list
for series in $kernels; do
    check "destroy-$series" bulkhead destroy "linux-$series"
done
