#!/bin/sh
# cycles.sh: any directory may come by NFS, which waits for the portmapper: systemd finds no ordering cycle at boot.
. /bed/checks/lib.sh

# cycle: whether the units that a boot starts can't be ordered, by tsort. Prints the loop.
cycle() {
  systemctl list-dependencies --all --plain --no-pager default.target | awk '{ print $NF }' | sort -u >/tmp/units
  xargs systemctl show --property=Id --property=After -- </tmp/units | awk '
    FILENAME == "/tmp/units" { wanted[$1] = 1; next }
    sub(/^Id=/, "") { id = $0 }
    sub(/^After=/, "") { after = $0 }
    /^$/ { flush() }
    END { flush() }
    function flush(n, list, i) {
      n = split(after, list, " ")
      for (i = 1; i <= n; i++) if (list[i] in wanted && id in wanted) print list[i], id
      after = id = ""
    }' /tmp/units - >/tmp/edges
  [ "$(wc -l </tmp/edges)" -gt 50 ] || return 0 # nothing could be seen, which is no answer
  not tsort /tmp/edges >/dev/null
}
cp /etc/fstab /tmp/fstab
try() {
  for dir in /var /var/cache /var/log /var/lib /usr/local /home /tmp /srv; do
    echo "192.0.2.9:/export $dir nfs defaults 0 0" >/etc/fstab
    systemctl daemon-reload
    check "no cycle with $dir by NFS" not cycle
  done
}
# In a container the condition of apparmor.service fails, but its dependencies count.
systemctl enable apparmor.service || :
try
mkdir -p /etc/systemd/system/rpcbind.service.d
printf '[Unit]\nAfter=apparmor.service\n' >/etc/systemd/system/rpcbind.service.d/wait.conf
echo "192.0.2.9:/export /var/cache nfs defaults 0 0" >/etc/fstab
systemctl daemon-reload
if systemctl cat apparmor.service; then check "control: a unit that waits for apparmor.service makes one" cycle; fi
rm -r /etc/systemd/system/rpcbind.service.d
cp /tmp/fstab /etc/fstab
systemctl daemon-reload
