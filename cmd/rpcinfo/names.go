package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// names are the names of programs: those of rpc(5), /etc/rpc, or those that come with the file on Debian if there is none,
// as in a container.
type names struct {
	name   map[uint32]string
	number map[string]uint32 // also of aliases
}

const knownPrograms = `
portmapper 100000 portmap sunrpc rpcbind
rstatd 100001 rstat rstat_svc rup perfmeter
rusersd 100002 rusers
nfs 100003 nfsprog
ypserv 100004 ypprog
mountd 100005 mount showmount
ypbind 100007
walld 100008 rwall shutdown
yppasswdd 100009 yppasswd
etherstatd 100010 etherstat
rquotad 100011 rquotaprog quota rquota
sprayd 100012 spray
3270_mapper 100013
rje_mapper 100014
selection_svc 100015 selnsvc
database_svc 100016
rexd 100017 rex
alis 100018
sched 100019
llockmgr 100020
nlockmgr 100021
x25.inr 100022
statmon 100023
status 100024
bootparam 100026
ypupdated 100028 ypupdate
keyserv 100029 keyserver
tfsd 100037
nsed 100038
nsemntd 100039
ypxfrd 100069
nfs_acl 100227
pcnfsd 150001
amd 300019 amq
sgi_fam 391002
ugidd 545580417
fypxfrd 600100069 freebsd-ypxfrd
bwnfsd 788585389
`

// maxNamesFile is the number of octets that are read of a file of names.
const maxNamesFile = 1 << 20

func readNames(path string) names {
	text := []byte(knownPrograms)
	if b, err := readAtMost(path, maxNamesFile); err == nil {
		text = b
	}
	return parseNames(text)
}

// readAtMost reads the beginning of a file.
func readAtMost(path string, limit int) ([]byte, error) {
	b, err := os.ReadFile(path)
	return b[:min(len(b), limit)], err
}

// parseNames reads lines of a name, a number and aliases. The first one that has a number or a name counts.
func parseNames(text []byte) names {
	n := names{name: make(map[uint32]string), number: make(map[string]uint32)}
	for line := range bytes.Lines(text) {
		before, _, _ := strings.Cut(string(line), "#")
		words := strings.Fields(before)
		if len(words) < 2 {
			continue
		}
		number, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			continue
		}
		if _, ok := n.name[uint32(number)]; !ok {
			n.name[uint32(number)] = words[0]
		}
		for _, name := range append(words[2:], words[0]) {
			if _, ok := n.number[name]; !ok {
				n.number[name] = uint32(number)
			}
		}
	}
	return n
}

// of returns the name of a program, or other if it has none.
func (n names) of(program uint32, other string) string {
	if name, ok := n.name[program]; ok {
		return printable(name)
	}
	return other
}
