package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// An initSystem is where services are enabled by links.
type initSystem struct {
	name    string
	runs    string   // what is there while it runs, "" for whatever runs if none of the others does
	links   []string // patterns, %s is the name of a service
	disable string   // command, %s is the name of a service
}

func initSystems() []initSystem {
	return []initSystem{
		{"systemd", "/run/systemd/system", []string{"/etc/systemd/system/*.wants/%s.service", "/etc/systemd/system/*.wants/%s.socket",
			"/etc/systemd/system/*.requires/%s.service", "/etc/systemd/system/*.requires/%s.socket"},
			"systemctl disable --now %s.socket %[1]s.service"},
		{"OpenRC", "/run/openrc", []string{"/etc/runlevels/*/%s"}, "rc-update delete %s -a"},
		{"System V's init", "", []string{"/etc/rc[0-9S].d/S[0-9][0-9]%s", "/etc/rc.d/rc[0-9].d/S[0-9][0-9]%s"}, sysvDisable()},
	}
}

// sysvDisable returns the command by which System V's init is told not to start a service, %s.
func sysvDisable() string {
	if _, err := exec.LookPath("chkconfig"); err == nil {
		return "chkconfig %s off"
	}
	return "update-rc.d %s disable"
}

// services looks whether gportmap and what it replaces are both started at boot: then it is chance who gets the port. Links for
// another init system than the one that runs mean nothing, nor do those of a package that was removed: Debian's rpcbind leaves
// its script and the links to it.
func (d *doctor) services() {
	if d.config.StateDir != "" {
		return // an instance beside the system's
	}
	all := initSystems()
	manager := all[slices.IndexFunc(all, func(s initSystem) bool {
		_, err := os.Stat(filepath.Join(d.root, s.runs))
		return s.runs == "" || err == nil
	})]
	if len(d.enabled(manager, "gportmap")) == 0 {
		return
	}
	for _, rival := range []string{"rpcbind", "portmap"} {
		if links := d.enabled(manager, rival); len(links) > 0 && d.installed(rival) {
			d.add(Warning, "services", fmt.Sprintf("%s starts %s as well as gportmap at boot (%s): one of them will fail",
				manager.name, rival, strings.Join(links, ", ")), fmt.Sprintf(manager.disable, rival))
		}
	}
}

// installed reports whether there is a program of that name that isn't gportmap by a link.
func (d *doctor) installed(program string) bool {
	return slices.ContainsFunc([]string{"/sbin", "/usr/sbin", "/usr/bin"}, func(dir string) bool {
		path := filepath.Join(d.root, dir, program)
		target, linkErr := os.Readlink(path)
		_, err := os.Stat(path)
		return err == nil && (linkErr != nil || filepath.Base(target) != "gportmap")
	})
}

// enabled returns the links by which a service is enabled. A link under another's name that leads to gportmap's own, as
// systemd makes them for an Alias=, is none of the other's, nor is a masked one.
func (d *doctor) enabled(manager initSystem, service string) []string {
	var links []string
	for _, pattern := range manager.links {
		found, _ := filepath.Glob(filepath.Join(d.root, fmt.Sprintf(pattern, service)))
		for _, link := range found {
			to, err := filepath.EvalSymlinks(link)
			if base := filepath.Base(to); err == nil && (to == os.DevNull || service != "gportmap" && strings.HasPrefix(base, "gportmap")) {
				continue
			}
			// The unit itself may be masked or an alias although the link leads to another directory's file.
			override := filepath.Join(d.root, "/etc/systemd/system", filepath.Base(link))
			if to, err := os.Readlink(override); err == nil && (to == os.DevNull || service != "gportmap" && strings.HasPrefix(filepath.Base(to), "gportmap")) {
				continue
			}
			links = append(links, strings.TrimPrefix(link, d.root))
		}
	}
	return links
}
