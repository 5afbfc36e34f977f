#!/bin/sh
# status.sh: what people are told of the daemon that runs as its unit, without root: servers with their units, the admin
# socket, metrics, the log's fields.
. /bed/checks/lib.sh
. /bed/checks/servers.sh

socket=/run/rpcbind/gportmap.sock
shown() { gportmap status | grep -Eq -- "$1"; }
asked() { wget_unix "$1" | grep -Eq -- "$2"; }
# wget_unix PATH: what the admin socket answers
wget_unix() {
  /usr/bin/perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!;
    print $s "GET $ARGV[1] HTTP/1.1\r\nHost: x\r\n\r\n"; print while <$s>' "$socket" "$1"
}

check "rpcbind.service is active" active rpcbind.service
check "the admin socket is the daemon's user's, mode 660" same "$(stat -c '%a %U' $socket)" "660 _rpc"
check "status says that all is well" shown '^health: well, '
servers_ready
check "servers register" start_servers
for server in "100024 +status .* rpc.statd/[0-9]+ +rpc-statd.service" "100003 +nfs .* ganesha.nfsd/[0-9]+ +nfs-ganesha.service" \
  "100004 +ypserv .* ypserv/[0-9]+ +ypserv.service"; do
  check "status has process and unit, alive: $server" shown "^$server +[0-9]+s +alive$"
done
check "the admin socket tells it in JSON" asked /v1/registrations '"command":"ypserv"|"program":100004'
check "and metrics" asked /metrics '^gportmap_registrations\{owner="superuser",state="alive"\} [1-9]'
check "and the calls" asked /v1/status '"procedure":"SET"'
systemctl kill -s KILL ypserv.service
systemctl stop ypserv.service
gportmap set 300000 1 udp 0.0.0.0.3.75
check "a server that is gone is shown" shown '^300000 .* dead$'
check "and in the line of health" shown '^health: .*whose server is gone'
gportmap unset 300000 1 udp
check "nobody else may ask" not setpriv --reuid 65534 --clear-groups gportmap watch --count 1
check "nobody is still told that it runs" sh -c "setpriv --reuid 65534 --clear-groups gportmap status | grep -q '^running'"
check "the journal has its start by MESSAGE_ID" sh -c \
  "journalctl -b -q -o cat _SYSTEMD_UNIT=rpcbind.service MESSAGE_ID=0dc3a9277c3c4e3ba5fc087b921a4f69 | grep -q ."
setpriv --reuid 65534 --clear-groups gportmap unset 100003 3 tcp
check "and a refused registration by its fields" within 5 sh -c \
  "journalctl -b -q -o cat _SYSTEMD_UNIT=rpcbind.service RPC_PROC=UNSET RPC_PROG=100003 'PEER=uid 65534' VERDICT=no | grep -q ."

# The group of --admin-group, and metrics over TCP, as docs/monitoring.md says.
mkdir -p /etc/systemd/system/rpcbind.service.d
printf '[Service]\nSupplementaryGroups=adm\nSystemCallFilter=@chown\nEnvironment="RPCBIND_OPTIONS=--admin-group adm --metrics 9111"\n' \
  >/etc/systemd/system/rpcbind.service.d/watched.conf
systemctl daemon-reload
check "restarted with --admin-group and --metrics" systemctl restart rpcbind.service
check "the admin socket is the group's" same "$(stat -c '%a %U %G' $socket)" "660 _rpc adm"
check "the group may ask" setpriv --reuid 65534 --regid adm --clear-groups gportmap watch --count 1
check "metrics over TCP" sh -c "/usr/bin/perl -MIO::Socket::INET -e '\$s = IO::Socket::INET->new(\"127.0.0.1:9111\") or die \$!;
  print \$s \"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n\"; print while <\$s>' | grep -q '^gportmap_build_info'"
rm -r /etc/systemd/system/rpcbind.service.d/watched.conf
systemctl daemon-reload
check "restarted without" systemctl restart rpcbind.service
check "no warning about the admin socket was logged" not logged rpcbind.service "admin socket can't"
