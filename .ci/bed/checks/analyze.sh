#!/bin/sh
# analyze.sh: what systemd itself says of the units.
. /bed/checks/lib.sh

units="gportmap.service gportmap-failed.service gportmap.socket gportmap6.socket gportmap-abstract.socket"
# verified: no word, but that what is in conflict with rpcbind's units isn't with itself, now that it has their names as well
verified() {
  SYSTEMD_COLORS=0 systemd-analyze verify --man=no $units >/tmp/verify 2>&1 || return
  not grep -v 'Dependency .* dropped' /tmp/verify
}
check "systemd-analyze verify of $(systemctl --version | head -n 1)" verified
exposure=$(systemd-analyze security --no-pager gportmap.service | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p')
check "systemd-analyze security: $exposure, at most 1.2" awk "BEGIN { exit !(\"$exposure\" != \"\" && $exposure <= 1.2) }"
