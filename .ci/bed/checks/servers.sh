# servers.sh: servers that register with the portmapper: rpc.statd, nfs-ganesha and ypserv, by their own units.

# start_servers: start them and wait until they are registered
start_servers() {
  mkdir -p /srv/export
  mountpoint -q /srv/export || mount -t tmpfs export /srv/export # nfs-ganesha wants a file system that gives handles
  cat >/etc/ganesha/ganesha.conf <<'C'
NFS_CORE_PARAM { Protocols = 3, 4; Enable_NLM = true; Enable_RQUOTA = true; }
EXPORT { Export_Id = 1; Path = /srv/export; Pseudo = /export; Protocols = 3, 4; Access_Type = RW; SecType = sys; FSAL { Name = VFS; } }
NFSv4 { Graceless = true; }
C
  echo bed >/etc/defaultdomain
  domainname bed
  # Without systemd's watch over what the container doesn't have: realtime, huge limits.
  systemctl start rpc-statd.service nfs-ganesha.service ypserv.service
  within 30 all_registered
}

all_registered() {
  rpcinfo >/tmp/registered
  for program in 100024 100003 100005 100021 100011 100004; do
    grep -q "^ *$program " /tmp/registered || return 1
  done
}

servers="rpc-statd.service nfs-ganesha.service ypserv.service"

# pids: who the servers are; another answer later means that one was started again
pids() { for unit in $servers; do main_pid "$unit"; done; }
