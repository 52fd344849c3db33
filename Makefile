# Each target is a line or two that a person could type as well.
PREFIX  ?= /usr
PROFILE ?= release
FEATURES ?=
.PHONY: help demo test lab bench install lint fmt deps

help:    ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: deps   ## see real containers run, in a disposable systemd host
	@tests/demo.sh

test: deps lint   ## everything: units, properties, then the lab's suites
	@tests/run.sh

lab: deps    ## a shell in a disposable systemd host with berth installed
	@tests/lab.sh up && tests/lab.sh shell; tests/lab.sh down

bench: deps  ## what operations cost, beside a bare-syscall program and dockerd
	@tests/bench.sh

install:     ## DESTDIR= PREFIX=/usr PROFILE=release: build and install
	cargo xtask install --destdir "$(or $(DESTDIR),/)" --prefix "$(PREFIX)" --profile "$(PROFILE)" --features "$(FEATURES)"

lint:        ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

fmt:         ## format everything
	cargo fmt --all

deps:        ## install what building and testing needs (Debian packages, cargo-nextest)
	@tests/install-deps.sh
