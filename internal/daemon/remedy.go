package daemon

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/gportmap/gportmap/internal/instance"
	"github.com/gportmap/gportmap/pkg/rpcbind"
)

// A remedy is one line for root's shell, to be pasted as it is. Where there are several, ", or " is between them.

// outOfTheWay returns the command that frees a path of what should not be there. Content isn't lost.
func outOfTheWay(path string) string {
	word := instance.ShellWord(path)
	if info, err := os.Lstat(path); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return "rm " + word
	}
	aside := path + ".old"
	for {
		if _, err := os.Lstat(aside); err != nil {
			return "mv " + word + " " + instance.ShellWord(aside)
		}
		aside += ".old"
	}
}

// pathRemedy returns the command that frees the path that an error is about, "" if it is about none.
func pathRemedy(err error) string {
	var path *fs.PathError
	if !errors.As(err, &path) {
		return ""
	}
	return outOfTheWay(path.Path)
}

// trustOrRemove returns the commands for a state file that somebody else may have written: believe it, or lose it.
func trustOrRemove(path string) string {
	word := instance.ShellWord(path)
	return "chown root " + word + " && chmod go-w " + word + ", or rm " + word
}

// startCommand returns the command that starts the daemon.
func (c Config) startCommand() string {
	if _, err := os.Stat("/run/systemd/system"); err == nil && c.StateDir == "" {
		return "systemctl start gportmap.service"
	}
	return "gportmap" + c.instanceFlags()
}

// restartCommand returns the command that stops the daemon that runs, of which p is known, and starts it again.
func (c Config) restartCommand(p *Process) string {
	if p != nil && (p.Unit == Unit || p.Unit == "rpcbind.service") {
		return "systemctl restart " + p.Unit
	}
	return "gportmap stop" + c.instanceFlags() + " && gportmap" + c.instanceFlags()
}

// instanceFlags returns the flags that name this instance, each behind a space.
func (c Config) instanceFlags() string {
	flags := ""
	if c.StateDir != "" {
		flags += " --state-dir " + instance.ShellWord(c.StateDir)
	}
	if standard, err := (Config{StateDir: c.StateDir}).complete(); err == nil && c.Socket != standard.Socket {
		flags += " --socket " + instance.ShellWord(c.Socket)
	}
	if c.Port != 0 && c.Port != rpcbind.Port {
		flags += " --port " + strconv.Itoa(int(c.Port))
	}
	return flags
}
