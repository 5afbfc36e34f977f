package rpcbind

import (
	"os/exec"
	"syscall"
)

// credential makes a command run as another user.
func credential(cmd *exec.Cmd, uid uint32) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
