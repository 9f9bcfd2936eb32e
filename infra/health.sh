#!/bin/bash
# Exits 0 when http://127.0.0.1:<port><path> answers 200. A few lines of shell, because it runs every
# ten seconds in every container, and a Node for each would cost more than the service.
set -u
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
read -r -t 3 _ status _ <&3
[ "${status:-}" = 200 ]
