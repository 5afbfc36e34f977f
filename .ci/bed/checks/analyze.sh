#!/bin/sh
# analyze.sh: what systemd itself says of the units.
. /bed/checks/lib.sh

units="rpcbind.service gportmap-failed.service rpcbind.socket gportmap-abstract.socket"
# verified: without a word
verified() {
  SYSTEMD_COLORS=0 systemd-analyze verify --man=no $units >/tmp/verify 2>&1 && not grep -v "Unknown key.*'RestartMode'" /tmp/verify
}
check "systemd-analyze verify of $(systemctl --version | head -n 1)" verified
exposure=$(systemd-analyze security --no-pager rpcbind.service | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p')
check "systemd-analyze security: $exposure, at most 1.2" awk "BEGIN { exit !(\"$exposure\" != \"\" && $exposure <= 1.2) }"
