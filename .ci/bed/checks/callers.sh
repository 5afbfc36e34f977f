# callers.sh: clients that don't stop asking while something is done to the daemon: see internal/bed/callers.

# calling [FLAG...]: start them; they ask for rpc.statd's port
calling() {
  /bed/files/callers "$@" 100024 1 >/tmp/callers &
  callers=$!
  sleep .5
}

# answered: end them; whether all of them were answered as they must be. What they say is in /tmp/callers.
answered() {
  sleep .5
  kill -TERM "$callers"
  wait "$callers"
  answered_=$?
  cat /tmp/callers
  return "$answered_"
}

# calls: what the callers counted, for a line of the report
calls() {
  awk '/ calls,/ { n++; match($0, /[0-9]+ calls/); calls += substr($0, RSTART); match($0, /[0-9]+ sent again/); again += substr($0, RSTART)
      match($0, /[0-9]+ connections broken/); broken += substr($0, RSTART)
      match($0, /[0-9]+ by TCP/); tcp += substr($0, RSTART) }
    END { printf "%d clients, %d calls, %d sent again, %d connections broken, %d by TCP instead", n, calls, again, broken, tcp }' /tmp/callers
}
