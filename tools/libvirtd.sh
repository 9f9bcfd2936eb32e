#!/bin/sh
# Keeps virtlogd and libvirtd running, under tini. Arguments: the two programs (the first is empty where
# the machine has a virtlogd that answers) and libvirtd's configuration.
# A few lines of shell, because this outlives Chronovirt for as long as VMs run and should weigh nothing.
virtlogd=$1
libvirtd=$2
configuration=$3

keep() {
  trap 'kill "$child" 2>/dev/null; wait "$child"; exit 0' TERM
  while :; do
    "$@" &
    child=$!
    wait "$child"
    sleep 1
  done
}

logs=
if [ -n "$virtlogd" ]; then
  keep "$virtlogd" &
  logs=$!
fi
keep "$libvirtd" -f "$configuration" &
daemon=$!
# libvirtd first: it writes to virtlogd until its end.
trap 'kill "$daemon"; wait "$daemon"; [ -n "$logs" ] && kill "$logs" && wait "$logs"; exit 0' TERM INT HUP
while :; do wait; done
