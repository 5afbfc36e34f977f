# gportmap: make help lists what can be made.

GO        ?= go
PREFIX    ?= /usr
DESTDIR   ?=
# What starts it: systemd, sysv, openrc or several; by default what started this system.
INIT      ?=
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# How many inputs each fuzz target tries. With a time instead (5s) go test fails now and then when it is over: golang/go#75804.
FUZZTIME  ?= 50000x
SOAK      ?= 10m
# How many faults of each scenario make faults tries; 0: all, which takes hours.
FAULTS    ?= 300
LDFLAGS    = -s -w -X main.version=$(VERSION)
# What the tests that need root compare with and register at the daemon.
TEST_PACKAGES = rpcbind tcpd libwrap0-dev fail2ban libtirpc-dev gcc libc6-dev pkg-config iproute2 procps nfs-ganesha nfs-ganesha-vfs nfs-common \
	ypserv ypbind-mt yp-tools python3-minimal rpcsvc-proto sysvinit-utils netbase make prometheus tmux nftables rpm cpio binutils systemd runit s6
# Modules inside this one, for what needs libraries that gportmap itself shall not depend on.
MODULES = pkg/examples/nfs internal/bed/compare
# Packages with tests that the race detector spoils: they are run without it as well.
PLAIN = ./internal/portmap ./internal/server ./internal/daemon
PLAIN_TESTS = TestUnreadRepliesAreBounded|TestAllAttacksTogether|TestLongestList

# Where the Debian roots of test-systemd and test-kernel are kept; they are made anew when .ci/bed/root changes.
BED_DIR   ?= /var/cache/gportmap-bed
RELEASES  ?= bullseye bookworm trixie sid

.PHONY: help build run test test-packages test-systemd test-releases test-kernel bed unit fuzz soak faults bench lint api man install uninstall package test-package clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/gportmap and bin/rpcinfo, static binaries
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

run: build ## start an instance without privileges, register and look up services with it, stop it
	@sh docs/demo.sh bin/gportmap

test: test-packages lint unit fuzz test-package test-systemd test-kernel ## everything that CI runs; as root on Debian it installs what it compares with

unit: ## the tests, with the race detector, and without where it is in the way; those that need root or a package say so when they are skipped
	@GO=$(GO) MODULES='$(MODULES)' PLAIN='$(PLAIN)' PLAIN_TESTS='$(PLAIN_TESTS)' sh .ci/unit -race -count=1 -timeout 20m

# The packages' services are not started: the tests start what they need in namespaces of their own.
test-packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh .ci/packages $(TEST_PACKAGES); \
	else echo "not root on Debian: tests that need these packages are skipped where they are missing: $(TEST_PACKAGES)"; fi

test-systemd: bed ## as root on Debian: under real systemd, in a container with servers that register
	@BED_DIR='$(BED_DIR)' sh .ci/bed/run systemd bin/bed

test-releases: bed ## as root on Debian: the package on each Debian release (RELEASES), under real systemd
	@BED_DIR='$(BED_DIR)' RELEASES='$(RELEASES)' sh .ci/bed/run releases bin/bed

test-kernel: bed ## as root on Debian: with the NFS server of Debian's kernel, in a virtual machine
	@BED_DIR='$(BED_DIR)' sh .ci/bed/run kernel bin/bed

# What these two copy into their machines.
bed: package
	@CGO_ENABLED=0 $(GO) build -o bin/bed/ ./internal/bed/callers ./internal/bed/neighbour ./cmd/gportmap
	@cp bin/package/gportmap_*_amd64.deb bin/bed/gportmap.deb
	@cp init/package/replace-rpcbind bin/bed/
	@cp init/package/rpm/post bin/bed/rpm-post

fuzz: ## each fuzz target with FUZZTIME (50000x) inputs
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || :); do \
	    echo "fuzz $$pkg $$f $(FUZZTIME)"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$pkg; \
	  done; done

soak: ## mutated calls and all attacks together for SOAK (10m) each, and each fuzz target with a million; as root
	$(GO) test -count=1 -timeout 0 -run 'TestCVE/2003-1079|TestAllAttacksTogether' ./internal/bed -bed.soak=$(SOAK) -v
	$(MAKE) fuzz FUZZTIME=1000000x

faults: ## system calls of a start, takeover, reload, stop, SET … fail, and signals come there: FAULTS (300) of each; as root
	$(GO) test -count=1 -timeout 0 -v ./internal/bed/faults -args -faults.sample=$(FAULTS)

bench: ## microbenchmarks for benchstat; as root, the loads beside rpcbind and a responder in C, written to docs/
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh .ci/packages rpcbind netbase gcc libc6-dev iproute2; fi
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) test -run '^TestLoads$$' -count=1 -v -timeout 60m ./internal/bed/bench -load.full -load.out="$(CURDIR)/docs"

lint: ## gofmt, go vet, also as other systems build pkg/, the modules' files, and that pkg/ keeps its promise to importers
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not gofmt-ed: $$bad"; exit 1; }
	$(GO) vet ./...
	@set -e; for os in darwin windows freebsd; do echo "GOOS=$$os $(GO) vet ./pkg/..."; GOOS=$$os $(GO) vet ./pkg/...; done
	@set -e; for m in $(MODULES); do echo "$(GO) vet, $$m"; $(GO) -C $$m vet ./...; $(GO) -C $$m mod tidy -diff; done
	$(GO) mod verify
	GO=$(GO) sh .ci/api check
	GO=$(GO) sh .ci/man check

man: ## init/man from docs/man and docs/configuration.md
	GO=$(GO) sh .ci/man write

api: ## record what pkg/ exports as what importers may rely on
	GO=$(GO) sh .ci/api record

install: build ## into DESTDIR and PREFIX (/usr), for INIT=systemd, sysv or openrc; names that rpcbind's package has stay its
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' INIT='$(INIT)' sh init/install

uninstall: ## take away what make install put there
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' INIT='$(INIT)' sh init/install --uninstall

package: ## bin/package: .deb and .rpm for amd64 and arm64, the same bytes from the same commit
	@GO=$(GO) sh init/package/build

test-package: ## checks of the packages that need no start of a system, and that two builds are the same
	@GO=$(GO) sh init/package/check

clean: ## remove what was built
	rm -rf bin run
