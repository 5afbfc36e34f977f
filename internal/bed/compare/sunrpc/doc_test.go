// Package sunrpc_test measures calls of github.com/prashanthpai/sunrpc beside pkg/oncrpc's, as package compare does with
// other libraries. It stands apart, and make test doesn't run it, because that library is on GitHub without being served
// by every module proxy, and none can be asked for its checksum here; encoding and decoding are go-xdr's, measured there.
//
//	cd internal/bed/compare/sunrpc
//	GOPROXY=direct go get github.com/prashanthpai/sunrpc@689a3880d90a
//	go test -run '^$' -bench . -count 10 | benchstat -col /lib /dev/stdin
package sunrpc_test
