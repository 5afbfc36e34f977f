# lib.sh: what the checks share. They run as root inside a machine of the bed. Standard output is the report, a line for each
# check; everything else that is printed, and every command, goes to standard error, which is shown after a failure.
set -u
exec 3>&1 1>&2
set -x
failed=0
trap 'set +x; [ "$failed" = 0 ] || journalctl -b --no-pager -u rpcbind -n 100; exit "$failed"' EXIT

say() { { set +x; } 2>/dev/null; echo "$*" >&3; echo "$*"; set -x; }

# check WHAT COMMAND...: whether the command succeeds
check() {
  checked=$1
  shift
  if "$@"; then say "ok    $checked"; else
    failed=1
    say "FAIL  $checked: $*"
  fi
}

not() { ! "$@"; }
same() { [ "$1" = "$2" ]; }

# within SECONDS COMMAND...: the command succeeds in that time. Only its last try is logged.
within() {
  { set +x; } 2>/dev/null
  until_=$(($(date +%s) + $1))
  shift
  while ! "$@" >/dev/null 2>&1; do
    if [ "$(date +%s)" -ge "$until_" ]; then
      set -x
      "$@"
      return
    fi
    sleep .1
  done
  set -x
}

active() { systemctl -q is-active "$@"; }
inactive() { ! systemctl -q is-active "$@"; }
main_pid() { systemctl show -P MainPID "$1"; }
# registered: all registrations but the portmapper's own, one a line
registered() { rpcinfo | awk 'NR > 1 && $1 != 100000 { $1 = $1; print }' | sort; }
logged() { journalctl -b --no-pager -o cat -u "$1" | grep -E -- "$2"; }

# Debian's rpcinfo, which went away with rpcbind's package: the answers are read by a program that isn't ours.
rpcinfo() { /var/cache/bed/rpcinfo "$@"; }

# install DEB: replace what is installed, without a network
install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --allow-downgrades --reinstall "$1" </dev/null
}
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# status NAME: the STATUS= line of a service
status() { systemctl show -P StatusText "$1"; }
# another_pid UNIT PID: it runs, as another process
another_pid() { active "$1" && [ "$(main_pid "$1")" != "$2" ] && [ "$(main_pid "$1")" != 0 ]; }
