# nfs.sh: the kernel's NFS server, version 3 with lockd, rpc.mountd and rpc.statd, and a mount of it on the same host.

# nfs_ready: make its files; call it once
nfs_ready() {
  mkdir -p /export /mnt/nfs
  echo hello >/export/file
  chmod 777 /export /export/file
  echo '/export 127.0.0.1(rw,no_root_squash,no_subtree_check,insecure)' >/etc/exports
  # Without the short times of grace the first lock would wait for 45 s.
  printf '[nfsd]\nudp=y\nthreads=2\ngrace-time=10\nlease-time=10\n' >/etc/nfs.conf.d/bed.conf
  modprobe lockd
  sysctl -q -w fs.nfs.nlm_grace_period=1
}

mounted() { mount -t nfs -o vers=3 127.0.0.1:/export /mnt/nfs && grep -q hello /mnt/nfs/file; }

# locked: a lock of a file on the mount is held on the server, with rpc.statd watching, and can be given back
locked() { python3 /bed/checks/nlm.py /mnt/nfs/file /export/file; }

# of_nfs: what the NFS server has registered; rpc.statd, which outlives it, left out
of_nfs() { registered | grep -v -w 100024; }
nothing_of_nfs() { [ -z "$(of_nfs)" ]; }
