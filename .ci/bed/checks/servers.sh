# servers.sh [few]: servers that register with the portmapper, started by their own units: rpc.statd, ypserv and, without "few",
# nfs-ganesha, which not every release can start in a container.

servers="rpc-statd.service nfs-ganesha.service ypserv.service"
programs="100024 100003 100005 100021 100011 100004"
if [ "${1-}" = few ]; then
  servers="rpc-statd.service ypserv.service"
  programs="100024 100004"
fi

# servers_ready: make their files; call it once
servers_ready() {
  mkdir -p /srv/export
  mount -t tmpfs export /srv/export # nfs-ganesha wants a file system that gives handles
  mkdir -p /etc/ganesha
  cat >/etc/ganesha/ganesha.conf <<'C'
NFS_CORE_PARAM { Protocols = 3, 4; Enable_NLM = true; Enable_RQUOTA = true; }
EXPORT { Export_Id = 1; Path = /srv/export; Pseudo = /export; Protocols = 3, 4; Access_Type = RW; SecType = sys; FSAL { Name = VFS; } }
NFSv4 { Graceless = true; }
C
  # The rpc.statd that nfs-ganesha's package would start is the same that rpc-statd.service starts.
  systemctl -q mask --runtime nfs-ganesha-lock.service
  echo bed >/etc/defaultdomain # of NIS
}

# start_servers: and wait until they are registered
start_servers() {
  systemctl start $servers
  within 30 all_registered
}

all_registered() {
  rpcinfo >/tmp/registered
  for program in $programs; do
    grep -q "^ *$program " /tmp/registered || return 1
  done
}

# pids: who the servers are; another answer later means that one was started again
pids() { for unit in $servers; do echo "$unit $(main_pid "$unit")"; done; }

# Systemd starts ypserv again whenever it starts rpcbind.service again, whoever that is, because ypserv.service says
# Requires=rpcbind.service: then it has another port. These are as above, but for that.
but_for_ypserv() { sed '/ypserv/s/[0-9.:]*\.[0-9]*\.[0-9]* \|service [0-9]*/(again) /'; }
