# The recipes of the project. `make` alone lists them.

.PHONY: help setup build test interop demo check release install uninstall clean
.DEFAULT_GOAL := help

help: ## list the recipes
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what building and testing need (Debian packages)
	@scripts/setup.sh

build: setup ## build the programs (target/debug)
	cargo build --workspace --locked

test: setup ## build, and run every test on the real programs
	@scripts/test.sh

interop: setup ## run other people's programs of the Remote Execution API against a farm, and Goma clients on them (gets them first)
	@scripts/interop.sh

demo: setup ## build, and watch a farm on this machine lease, push, run, survive, collect, expire
	@scripts/demo.sh

check: setup ## what CI checks besides the tests: format, lints, documentation, licences
	@scripts/check.sh

release: setup ## build the programs for use (target/release)
	cargo build --release --locked --workspace --exclude motefarm-tests

# Where `install` puts things. PROGRAMS: where the built programs are.
PREFIX = /usr/local
DESTDIR =
PROGRAMS = target/release
bindir = $(DESTDIR)$(PREFIX)/bin
libdir = $(DESTDIR)$(PREFIX)/lib
docdir = $(DESTDIR)$(PREFIX)/share/doc/motefarm
programs = mote mote-bridge mote-buildlet mote-coordinator
units = $(notdir $(wildcard deploy/systemd/*.service))

install: $(PROGRAMS)/mote-coordinator ## install programs, units and examples (PREFIX, DESTDIR); no configuration
	install -d $(bindir) $(libdir)/systemd/system $(libdir)/sysusers.d $(libdir)/tmpfiles.d $(docdir)/examples
	for program in $(programs); do install -m 0755 $(PROGRAMS)/$$program $(bindir)/$$program.new && mv -f $(bindir)/$$program.new $(bindir)/$$program || exit 1; done
	for unit in $(units); do sed 's,/usr/bin/mote,$(PREFIX)/bin/mote,g;s,/usr/share/doc/motefarm,$(PREFIX)/share/doc/motefarm,g' deploy/systemd/$$unit >$(libdir)/systemd/system/$$unit && chmod 0644 $(libdir)/systemd/system/$$unit || exit 1; done
	install -m 0644 deploy/sysusers.d/motefarm.conf $(libdir)/sysusers.d/
	install -m 0644 deploy/tmpfiles.d/motefarm.conf $(libdir)/tmpfiles.d/
	install -m 0644 deploy/examples/* $(docdir)/examples/
	install -m 0644 docs/install.md docs/configuration.md docs/security.md docs/goma.md LICENSE $(docdir)/

uninstall: ## remove what install put there; configuration and data stay
	rm -f $(addprefix $(bindir)/,$(programs)) $(addprefix $(libdir)/systemd/system/,$(units))
	rm -f $(libdir)/sysusers.d/motefarm.conf $(libdir)/tmpfiles.d/motefarm.conf
	rm -rf $(docdir)

$(PROGRAMS)/mote-coordinator:
	$(MAKE) release

clean: ## remove what was built
	cargo clean
