// Package compare_test measures pkg/xdr and pkg/oncrpc beside the libraries that Go programs use now. It is a module of its
// own, so that these don't become dependencies of gportmap:
//
//	cd internal/bed/compare
//	go test -run '^$' -bench . -count 10 | tee new.txt
//	benchstat -col /lib new.txt
package compare_test
