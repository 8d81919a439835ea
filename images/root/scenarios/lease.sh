#!/bin/sh
# What udhcpc calls when it has a lease: give the address to the interface.
[ "$1" = bound ] && ip addr add "$ip/${mask:-24}" dev "$interface"
exit 0
