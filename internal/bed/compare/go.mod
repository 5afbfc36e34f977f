module github.com/gportmap/gportmap/internal/bed/compare

go 1.26.0

require (
	github.com/gportmap/gportmap v0.0.0
	github.com/rasky/go-xdr v0.0.0-20170124162913-1a41d1a06c93
	github.com/vmware/go-nfs-client v0.0.0-20190605212624-d43b92724c1b
)

replace github.com/gportmap/gportmap => ../../..
