# callers.sh: clients that don't stop asking while something is done to the daemon: see internal/bed/callers.

# calling [FLAG...]: start them; they ask for the port of $called, by default rpc.statd
calling() {
  /bed/files/callers "$@" ${called:-100024 1} >/tmp/callers &
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
      match($0, /[0-9]+ by TCP/); tcp += substr($0, RSTART)
      match($0, /[0-9]+ WRONG/); if (RSTART) wrong += substr($0, RSTART)
      if (match($0, /without an answer [0-9]+/)) { ms = substr($0, RSTART + 18) + 0; if (ms > gap) gap = ms } }
    END { printf "%d clients, %d calls, %d sent again, %d connections broken, %d by TCP instead, %d refused, %d ms without an answer at most",
      n, calls, again, broken, tcp, wrong, gap }' /tmp/callers
}
