module github.com/gportmap/gportmap/internal/bed/compare/sunrpc

go 1.26.0

require (
	github.com/gportmap/gportmap v0.0.0
	github.com/prashanthpai/sunrpc v0.0.0-20210303180433-689a3880d90a
)

require github.com/rasky/go-xdr v0.0.0-20170124162913-1a41d1a06c93 // indirect

replace github.com/gportmap/gportmap => ../../../..
