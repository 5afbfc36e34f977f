# lib.sh: what the scripts of this directory share. They are run as root, on Debian, with debootstrap, systemd-container,
# qemu-system-x86 and e2fsprogs installed, which make test-systemd and make test-kernel see to.
set -eu

# Where the Debian roots are kept from one run to the next.
BED_DIR=${BED_DIR:-/var/cache/gportmap-bed}
here=$(cd "$(dirname "$0")" && pwd)

die() {
  echo "$0: $*" >&2
  exit 1
}

# suite: the release of this machine; mirror: where its apt gets it from; sources SUITE: its apt's sources, for that release
suite() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

mirror() {
  apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(CODENAME)' |
    awk -v s="$(suite)" '$1 == "Packages" && $3 == s { sub("/*$", "", $2); print $2; exit }'
}

sources() {
  apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(CODENAME) $(COMPONENT)' |
    awk -v own="$(suite)" -v s="$1" '$1 == "Packages" && index($3, own) == 1 { sub(own, s, $3); print "deb", $2, $3, $4 }' | sort -u
}

# cached NAME RECIPE COMMAND...: make the directory $BED_DIR/NAME by COMMAND... DIRECTORY, unless one is there that was made by
# the same RECIPE, a file. Prints the directory.
cached() {
  dir=$BED_DIR/$1
  stamp=$(sha256sum <"$2")
  shift 2
  mkdir -p -m 755 "$BED_DIR"
  exec 9>"$dir.lock"
  flock 9
  if [ "$(cat "$dir.stamp" 2>/dev/null)" != "$stamp" ]; then
    for mounted in proc sys; do umount -l "$dir/$mounted" 2>/dev/null || :; done # by a debootstrap that was killed
    rm -rf --one-file-system "$dir" "$dir.stamp"
    "$@" "$dir" >"$dir.log" 2>&1 || {
      cat "$dir.log" >&2
      die "$dir can't be made"
    }
    echo "$stamp" >"$dir.stamp"
  fi
  exec 9>&-
  echo "$dir"
}

# overlay ROOT: a throw-away writable copy of ROOT; sets $work, a directory of this run, and $copy, the copy in it.
overlay() {
  work=$(mktemp -d "$BED_DIR/run.XXXXXX")
  trap 'status=$?; cleanup; exit $status' EXIT
  trap 'exit 130' INT TERM HUP PIPE
  # The changes are kept in memory, so that they don't depend on what $BED_DIR is on.
  mount -t tmpfs -o mode=755 gportmap-bed "$work"
  copy=$work/root
  mkdir "$work/changes" "$work/overlay" "$copy"
  mount -t overlay gportmap-bed -o "xino=on,lowerdir=$1,upperdir=$work/changes,workdir=$work/overlay" "$copy"
}

# prepare FILES: what every machine of the bed has: the checks and FILES in /bed, and less patience than by default.
prepare() {
  mkdir -p "$copy/bed" "$copy/etc/systemd/system.conf.d"
  cp -R "$1" "$copy/bed/files"
  cp -R "$here/checks" "$copy/bed/checks"
  printf '[Manager]\nDefaultTimeoutStartSec=30s\nDefaultTimeoutStopSec=5s\n' >"$copy/etc/systemd/system.conf.d/bed.conf"
}

# cleanup: take away what overlay made; a script with more to clean defines its own and calls this.
cleanup() { remove_overlay; }

remove_overlay() {
  umount -R "$copy" 2>/dev/null || umount -R -l "$copy" 2>/dev/null || :
  umount "$work" 2>/dev/null || umount -l "$work" || :
  rmdir "$work" 2>/dev/null || :
}
