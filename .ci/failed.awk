# Of the output of go test -v: what each failed test printed, at most the last 60 lines of it, and what no test printed of
# packages that failed to build or ended by a panic, the first 100 lines.
function keep(line) {
  if (substr(line, 1, 4) == "    " || test != "") text[test, count[test]++] = line
}
/^=== (RUN|CONT|NAME) / { test = $3; next }
/^=== PAUSE / { next }
/^ *--- FAIL: / { if (!(($3) in failed)) { failed[$3] = 1; order[++failures] = $3 } keep($0); next }
/^ *--- (PASS|SKIP): / { next }
/^(panic:|fatal error:|WARNING: DATA RACE)/ { loose = 100 }
/^#/ { loose = 20 } # a package that doesn't build
/^(ok|FAIL)\t/ {
  if ($1 == "FAIL") print "FAIL " $2
  for (i = 1; i <= failures; i++) {
    t = order[i]
    n = count[t] + 0
    print "  " t
    for (j = (n > 60 ? n - 60 : 0); j < n; j++) print "    " text[t, j]
  }
  split("", text); split("", count); split("", failed); split("", order)
  failures = 0; test = ""; loose = 0
  next
}
loose > 0 { loose--; print; next }
{ keep($0) }
