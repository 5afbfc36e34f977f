"""nlm.py MOUNTED EXPORTED: lock a file on an NFS mount of this host; its server must hold the lock, rpc.statd watch the client."""
import errno
import fcntl
import os
import sys


def is_free(path):
    with open(path, "r+") as f:
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True


def seen_by_another_process(path):
    child = os.fork()
    if child == 0:
        os._exit(0 if is_free(path) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


mounted, exported = sys.argv[1:]
with open(mounted, "r+") as f:
    fcntl.lockf(f, fcntl.LOCK_EX)
    if seen_by_another_process(exported):
        sys.exit("the server doesn't hold the lock")
    if not os.listdir("/var/lib/nfs/sm"):
        sys.exit("rpc.statd watches nobody")
    fcntl.lockf(f, fcntl.LOCK_UN)
if not seen_by_another_process(exported):
    sys.exit("the server still holds the lock")
