#!/bin/sh
# doctor.sh: with the package installed, doctor reports nothing wrong while the service runs, and while its sockets wait for it.
. /bed/checks/lib.sh

nothing_wrong() { gportmap doctor | tee /dev/stderr | grep -q '^nothing is wrong'; }
check "doctor: nothing is wrong" nothing_wrong
check "stopped, with the sockets" systemctl stop rpcbind.service
check "doctor: nothing is wrong" nothing_wrong
check "doctor says how to start it" sh -c 'gportmap doctor | grep "systemctl start"'
check "started" systemctl start rpcbind.service
check "status --json is about the unit" sh -c 'gportmap status --json | grep "\"rpcbind.service\""'
