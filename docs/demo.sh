#!/bin/sh
# demo.sh GPORTMAP: a whole instance without privileges, beside whatever serves port 111 of this host. It starts the
# daemon in the background, registers services as their servers would, looks them up, and stops it.
set -eu
gportmap=$1
port=${PORT-11111}
dir=$(mktemp -d)
sock=$dir/rpcbind.sock
pid=
finish() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null && wait "$pid" || :
  fi
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM
show() {
  echo
  echo "\$ gportmap $*"
  "$gportmap" "$@"
}

"$gportmap" -f --host 127.0.0.1 --port "$port" --state-dir "$dir" &
pid=$!
tries=0
until "$gportmap" list --socket "$sock" >/dev/null 2>&1; do
  kill -0 "$pid" 2>/dev/null || { pid=; exit 1; }
  tries=$((tries + 1))
  [ "$tries" -lt 100 ] || { echo "demo.sh: no answer on $sock" >&2; exit 1; }
  sleep 0.05
done

show set --socket "$sock" 100003 3 tcp 0.0.0.0.8.1 # what an NFS server says when it starts: port 8*256+1 = 2049
show set --socket "$sock" 100005 3 udp 0.0.0.0.78.80
show list --socket "$sock"
show getaddr --host "127.0.0.1:$port" 100003 3 tcp # what an NFS client asks
show unset --socket "$sock" 100005 3
show list --socket "$sock"
echo
echo "gportmap (pid $pid) served udp and tcp port $port of loopback and $sock; stopping it."
