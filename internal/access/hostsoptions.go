package access

import (
	"slices"
	"strings"
)

// Names in the values of the option severity (syslog.conf(5)).
var (
	syslogFacilities = []string{"auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "security", "syslog", "user",
		"uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
	syslogLevels = []string{"emerg", "alert", "crit", "err", "error", "warning", "warn", "notice", "info", "debug", "panic"}
)

// options returns the verdict of a line that matches and has options (hosts_options(5)), of which permits is the one
// without. What is wrong for the library refuses the caller there as well.
func (p *hostsParser) options(text string, permits bool) bool {
	fields := splitOptions(text)
	for i, f := range fields {
		key, value := cutOption(f)
		key = strings.ToLower(key)
		if why := wrongOption(key, value, i == len(fields)-1); why != "" {
			p.warn("option %q %s: callers are refused, as by the tcpd library", f, why)
			return false
		}
		switch key {
		case "allow", "deny":
			return key == "allow"
		case "twist", "aclexec", "user", "group":
			p.warn("option %s would run a command or change gportmap's user: callers are refused instead", key)
			return false
		case "spawn", "umask", "setenv", "rfc931", "nice", "banners":
			p.warn("option %s isn't honoured: gportmap runs no commands and asks no callers' hosts", key)
		}
	}
	return permits
}

// wrongOption tells what is wrong with an option, "" if nothing is.
func wrongOption(key, value string, last bool) string {
	number := func(digits string) bool { return value != "" && strings.Trim(value, digits) == "" }
	ok := true
	switch key {
	case "allow", "deny":
		ok = value == ""
	case "twist", "aclexec", "spawn", "user", "group", "setenv", "banners":
		ok = value != ""
	case "rfc931", "nice":
		ok = value == "" || number("0123456789")
	case "linger":
		ok = number("0123456789")
	case "umask":
		ok = number("01234567")
	case "keepalive":
		ok = value == ""
	case "severity":
		facility, level, both := strings.Cut(value, ".")
		if !both {
			facility, level = "daemon", value
		}
		ok = slices.Contains(syslogFacilities, facility) && slices.Contains(syslogLevels, level)
	default:
		return "is none of the tcpd library's"
	}
	switch {
	case !ok:
		return "has a wrong value"
	case !last && (key == "allow" || key == "deny" || key == "twist"):
		return "isn't the last one"
	}
	return ""
}

// splitOptions splits at colons that have no backslash before them.
func splitOptions(s string) (fields []string) {
	var f strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			f.WriteByte(':')
			i++
		case s[i] == ':':
			fields = append(fields, strings.TrimSpace(f.String()))
			f.Reset()
		default:
			f.WriteByte(s[i])
		}
	}
	return append(fields, strings.TrimSpace(f.String()))
}

// cutOption cuts "key = value" or "key value".
func cutOption(s string) (key, value string) {
	i := strings.IndexAny(s, " \t=")
	if i < 0 {
		return s, ""
	}
	value = strings.TrimSpace(s[i:])
	value = strings.TrimSpace(strings.TrimPrefix(value, "="))
	return s[:i], value
}
