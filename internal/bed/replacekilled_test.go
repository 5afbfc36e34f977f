package bed_test

import (
	"path/filepath"
	"testing"

	"github.com/gportmap/gportmap/internal/bed"
)

// TestReplaceRpcbindKilled kills replace-rpcbind while apt works: the policy that it made says no only as long as it runs, and
// doesn't keep the next one from its work.
func TestReplaceRpcbindKilled(t *testing.T) {
	bed.InNamespace(t, bed.Options{}, func(t *testing.T, _ *bed.NS) {
		script, err := filepath.Abs("../../init/package/replace-rpcbind")
		if err != nil {
			t.Fatal(err)
		}
		const policy = "/usr/sbin/policy-rc.d"
		shell(t, "mkdir /run/u /run/w /run/bin && mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/u,workdir=/run/w /usr/sbin && rm -f "+policy).want(t, 0)
		// In the place of apt-get: it tells what the policy says, and for the first one takes long.
		shell(t, `printf '#!/bin/sh\n`+policy+` rpcbind stop; echo $? >/run/said; `+policy+` nfs-server stop; echo $? >>/run/said\n[ -e /run/short ] || exec sleep 60\n' `+
			`>/run/bin/apt-get && chmod 755 /run/bin/apt-get`).want(t, 0)
		replace := "PATH=/run/bin:$PATH sh " + script + " x.deb"
		shell(t, replace+" >/run/out 2>&1 & echo $! >/run/replacing").want(t, 0)
		waitUntil(t, "apt works", func() bool { return shell(t, "[ \"$(wc -l </run/said)\" = 2 ]").code == 0 })
		shell(t, "cat /run/said").want(t, 0, "101\n0\n")
		shell(t, replace).want(t, 1, "policy-rc.d is there") // not two at once
		shell(t, "kill -9 $(cat /run/replacing)").want(t, 0)
		waitUntil(t, "it is gone", func() bool {
			return shell(t, "grep -qs '^[^ ]* [^ ]* [^Z]' /proc/$(cat /run/replacing)/stat").code != 0
		})
		shell(t, "cp "+policy+" /run/left").want(t, 0)
		shell(t, policy+" rpcbind stop").want(t, 0)
		if present(policy) {
			t.Error("the policy of a process that was killed stays")
		}
		// Another one finds it.
		shell(t, "cp /run/left "+policy+"; touch /run/short; "+replace).want(t, 0)
		shell(t, "cat /run/said").want(t, 0, "101\n0\n")
		if present(policy) {
			t.Error("the policy stays")
		}
	})
}
