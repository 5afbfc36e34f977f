# bash completion of gportmap
_gportmap() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i
  local commands="status watch doctor stop reload takeover check-config explain list set unset getaddr firewall help"
  local flags="--abort --debug --foreground --host --free-bind --insecure --log-calls --remote-calls --drop-privileges --user --takeover --version
    --warm-start --config --rpcbind-messages --exposure --udp-lists --allow --deny --root-only --strict-set --remote-call-to --answer-rate --max-registrations
    --max-registrations-per-owner --max-string
    --max-connections --max-connections-each --max-record --max-calls-in-flight --max-lookup-stats
    --max-remote-stats --max-log-lines --idle-timeout --record-timeout
    --admin-group --metrics --port --socket --state-dir --help"
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " $commands " in *" ${COMP_WORDS[i]} "*)
      command=${COMP_WORDS[i]}
      break
      ;;
    esac
  done
  case $before in
  --exposure) COMPREPLY=($(compgen -W "world lan local" -- "$word")); return ;;
  --udp-lists) COMPREPLY=($(compgen -W "connected local all" -- "$word")); return ;;
  --format) COMPREPLY=($(compgen -W "nft firewalld ufw" -- "$word")); return ;;
  --admin-group) COMPREPLY=($(compgen -g -- "$word")); return ;;
  --state-dir) COMPREPLY=($(compgen -d -W none -- "$word")); return ;;
  --config | --socket) COMPREPLY=($(compgen -f -- "$word")); return ;;
  --host | -h) COMPREPLY=($(compgen -A hostname -- "$word")); return ;;
  esac
  case $command in
  '') [[ $word == -* ]] && commands=; COMPREPLY=($(compgen -W "$commands $flags" -- "$word")) ;;
  status) COMPREPLY=($(compgen -W "--json $flags" -- "$word")) ;;
  watch) COMPREPLY=($(compgen -W "--json --interval --count $flags" -- "$word")) ;;
  doctor) COMPREPLY=($(compgen -W "--json --fix $flags" -- "$word")) ;;
  explain) COMPREPLY=($(compgen -W "--json --on --to $flags" -- "$word")) ;;
  check-config) COMPREPLY=($(compgen -f -W "$flags" -- "$word")) ;;
  takeover) COMPREPLY=($(compgen -W "--enable $flags" -- "$word")) ;;
  stop | reload) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
  list) COMPREPLY=($(compgen -W "--json --socket --host --help" -- "$word")) ;;
  firewall) COMPREPLY=($(compgen -W "--format --table --zone --watch --interval --socket --host --help" -- "$word")) ;;
  set | unset | getaddr) COMPREPLY=($(compgen -W "udp tcp udp6 tcp6 local --socket --host --help" -- "$word")) ;;
  esac
}
complete -F _gportmap gportmap
