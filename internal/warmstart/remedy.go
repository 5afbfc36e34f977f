package warmstart

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DirectoryRemedy returns the commands for root's shell that make a usable state directory of what is at dir, with the state
// that is there. Owned says that the directory belongs to whom it should. Where another user may have forged what is in it,
// ", or " follows and the command that leaves it behind.
func DirectoryRemedy(dir string, owned bool) string {
	word, aside := quote(dir), quote(unused(dir+".old"))
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return "mkdir -p " + word
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := filepath.EvalSymlinks(dir)
		if _, kept := os.Lstat(filepath.Join(target, rpcbFile)); err == nil && kept == nil {
			return "rm " + word + " && cp -a " + quote(target) + " " + word // rpcbind follows the link
		}
		return "rm " + word
	case !info.IsDir():
		return "mv " + word + " " + aside
	case owned:
		return "chmod -R go-w " + word
	}
	user := "root"
	if uid := os.Geteuid(); uid != 0 {
		user = strconv.Itoa(uid)
	}
	return "chown -R " + user + " " + word + " && chmod -R go-w " + word + ", or mv " + word + " " + aside
}

// unused returns path, or a longer one if it is taken.
func unused(path string) string {
	for {
		if _, err := os.Lstat(path); err != nil {
			return path
		}
		path += ".old"
	}
}

// quote makes one word of a path for a shell.
func quote(path string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if strings.Trim(path, plain) == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
