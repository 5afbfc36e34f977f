#compdef gportmap
# zsh completion of gportmap

local -a flags target commands
flags=(
  '(-a --abort)'{-a,--abort}'[with -d: a fault shows all stacks]'
  '(-d --debug)'{-d,--debug}'[log more, and every call]'
  '(-f --foreground)'{-f,--foreground}'[stay in the foreground]'
  '*'{-h,--host}'[serve this address only]:address:_hosts'
  '(-i --insecure)'{-i,--insecure}'[let every host register]'
  '(-l --log-calls)'{-l,--log-calls}'[log every call]'
  '(-r --remote-calls)'{-r,--remote-calls}'[make calls for others]'
  '(-s --drop-privileges)'{-s,--drop-privileges}'[become _rpc, rpc or daemon]'
  '--user[become this user]:user:_users'
  '--takeover[serve in the place of the portmapper that runs]'
  '(-v --version)'{-v,--version}'[print the version]'
  '(-w --warm-start)'{-w,--warm-start}'[accepted]'
  '--config[configuration file]:file:_files'
  '--rpcbind-messages[log refused calls in the words of rpcbind]'
  '--exposure[whom to answer]:whom:(world lan local)'
  '--udp-lists[who gets lists over UDP]:whom:(connected local all)'
  '*--allow[let in]:rule:'
  '*--deny[keep out]:rule:'
  '*--root-only[only root may register it]:program:'
  '--free-bind[serve addresses that come later]'
  '--strict-set[only at ports of the caller]'
  '*--remote-call-to[with -r: call this for others]:program:'
  '--answer-rate[datagrams a second for each network]:number:'
  '--max-registrations[in all]:number:'
  '--max-registrations-per-owner[of each user]:number:'
  '--max-string[of a netid or address]:octets:'
  '--max-connections[over TCP]:number:'
  '--max-connections-each[of one address or user]:number:'
  '--max-record[octets of a call on a stream]:number:'
  '--max-calls-in-flight[calls for others that wait]:number:'
  '--max-lookup-stats[in GETSTAT]:number:'
  '--max-remote-stats[in GETSTAT]:number:'
  '--max-log-lines[a second]:number:'
  '--idle-timeout[of TCP connections]:time:'
  '--record-timeout[of a call on TCP]:time:'
  '--admin-group[who may open the admin socket]:group:_groups'
  '--metrics[serve metrics over TCP]:address and port:'
  '--port[UDP and TCP port]:port:'
  '--socket[local socket]:path:_files'
  '--state-dir[directory of the instance, or none]:directory:_files -/'
  '--help[print this]'
)
target=('--socket[local socket]:path:_files' '--host[portmapper of this host]:host:_hosts' '--help[print the usage]')
commands=(
  'status:how the daemon is' 'watch:calls, changes and refusals, live' 'doctor:what keeps it from starting' 'stop:end it'
  'reload:let it read its configuration again' 'takeover:serve in the place of the portmapper that runs'
  'check-config:whether a configuration is right' 'explain:which rule decides about a call' 'list:all registrations'
  'set:register' 'unset:unregister' 'getaddr:look up' 'firewall:rules for the registered ports' 'help:everything'
)
if (( CURRENT == 2 )) && [[ $PREFIX != -* ]]; then
  _describe command commands
  return
fi
case $words[2] in
status) shift words; (( CURRENT-- )); _arguments '--json[print JSON]' $flags ;;
watch) shift words; (( CURRENT-- )); _arguments '--json[print JSON]' '--interval[between two looks]:time:' '--count[how often]:number:' $flags ;;
doctor) shift words; (( CURRENT-- )); _arguments '--json[print JSON]' '--fix[remove stale files]' $flags ;;
explain) shift words; (( CURRENT-- )); _arguments '--json[print JSON]' '--on[arrival interface]:interface:' '--to[address called]:address:' $flags ;;
check-config) shift words; (( CURRENT-- )); _arguments $flags '1:file:_files' ;;
takeover) shift words; (( CURRENT-- )); _arguments '--enable[also at the next boot]' $flags ;;
stop|reload) shift words; (( CURRENT-- )); _arguments $flags ;;
list) shift words; (( CURRENT-- )); _arguments '--json[print JSON]' $target ;;
firewall)
  shift words
  (( CURRENT-- ))
  _arguments '--format[of the rules]:format:(nft firewalld ufw)' '--table[of nft]:table:' '--zone[of firewalld]:zone:' \
    '--watch[follow changes]' '--interval[between two looks]:time:' $target
  ;;
set|unset|getaddr) shift words; (( CURRENT-- )); _arguments $target '1:program:' '2:version:' '3:netid:(udp tcp udp6 tcp6 local)' '4:address:' ;;
*) _arguments $flags ;;
esac
