package main

// usageText is what rpcinfo(8) prints when it is called wrongly.
const usageText = `Usage: rpcinfo [-m | -s] [host]
       rpcinfo -p [host]
       rpcinfo -T netid host prognum [versnum]
       rpcinfo -l host prognum versnum
       rpcinfo [-n portnum] -u | -t host prognum [versnum]
       rpcinfo -a serv_address -T netid prognum [version]
       rpcinfo -b prognum versnum
       rpcinfo -d [-T netid] prognum versnum
`

const helpText = `Usage: rpcinfo [-s | -m] [HOST]                           list the registrations; -s in short, -m statistics
       rpcinfo -p [HOST]                                  list those of version 2, which older clients see
       rpcinfo -l HOST PROGRAM VERSION                    list the addresses of a program
       rpcinfo -T NETID HOST PROGRAM [VERSION]            call a program, or each of its versions
       rpcinfo [-n PORT] -u | -t HOST PROGRAM [VERSION]   the same over UDP or TCP, of either version of IP
       rpcinfo -a ADDRESS -T NETID PROGRAM [VERSION]      the same without a portmapper, at a universal address
       rpcinfo -b PROGRAM VERSION                         call a program of every host of the local networks
       rpcinfo -d [-T NETID] PROGRAM VERSION              unregister a program of this host

Without HOST the portmapper of this host is asked. PROGRAM is a number or a name of /etc/rpc. NETID is udp, tcp, udp6,
tcp6 or local, and may be given to the lists too. In ADDRESS the port follows the address: 192.0.2.1.8.1 is port
8*256+1 of 192.0.2.1.

      --timeout DURATION   how long to wait for a connection and for each answer (default 10s); how long -b takes (12s)
      --json               print an object on a line for each host, answer of -b, call of --ping or event of --watch
      --hosts FILE         ask the hosts in this file, one on a line, at the same time; - is standard input. The lists
                           -s, -p and -m also take several hosts: rpcinfo -p HOST HOST
      --ping               with -u, -t, -T or -a: call again and again, tell how long each answer takes, and at the
                           end how many were lost and how long they took; without VERSION, the highest
      --watch              list the registrations, then each that comes (+) and goes (-)
      --count N            with --ping: call N times; with --watch: look N times. Without, until it is interrupted
      --interval DURATION  between two calls of --ping, two looks of --watch (default 1s)
      --version            print the version
      --help               print this

Examples:
  rpcinfo -p nfs.example                     what is registered on nfs.example
  rpcinfo -t nfs.example nfs                 whether its NFS server answers, in each version
  rpcinfo -T tcp6 ::1 mountd 3               whether this host's mountd answers over IPv6
  rpcinfo --ping --count 10 -u nas nfs 3     how long the NFS server of nas takes to answer
  rpcinfo --json --hosts servers -t nfs 4    which of these hosts serve NFS 4, for programs

DURATION is a number of seconds, or as 500ms or 1m30s. Exit codes: 0 all is well, 1 something is not.
`
