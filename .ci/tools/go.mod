// Programs that make lint runs. They are a module of their own, so that whoever imports pkg/ gets none of them.
module github.com/gportmap/gportmap/ci/tools

go 1.26.0

tool (
	github.com/cpuguy83/go-md2man/v2
	golang.org/x/exp/cmd/apidiff
)

require (
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	golang.org/x/exp v0.0.0-20261113113407-e3970619a1a4 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/tools v0.52.1-0.20261106145633-d407941a339a // indirect
)
