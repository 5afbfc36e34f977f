module github.com/gportmap/gportmap

go 1.26.0

require (
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/pelletier/go-toml/v2 v2.4.3
	github.com/spf13/pflag v1.1.0
	github.com/vmware/go-nfs-client v0.0.0-20190605212624-d43b92724c1b
	golang.org/x/sys v0.50.0
	golang.org/x/term v0.48.0
)

require github.com/rasky/go-xdr v0.0.0-20170124162913-1a41d1a06c93 // indirect
