//go:build !linux

package rpcbind

import "os/exec"

// credential is not needed: the test that calls it is for Linux.
func credential(*exec.Cmd, uint32) {}
