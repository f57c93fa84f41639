# Everything a contributor types: `make demo`, `make test`, `make check`. The rest is below.

# The oldest Deno that runs the targets here offline: it takes permissions from deno.json (-P, since 2.5) and carries
# the types of node: modules itself (since 2.6). Without one on PATH the pinned one is installed into .tools/.
DENO_MINIMUM := 2.6.0
DENO_PINNED := 2.9.6

NATIVE_FLAGS := -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-unwind-tables \
	-fno-asynchronous-unwind-tables -fPIC -fvisibility=hidden -shared -nostdlib -Wl,-z,defs -Wl,-z,nodelete \
	-Wl,-z,noexecstack -Wl,-z,norelro -Wl,-z,noseparate-code -Wl,--hash-style=gnu -Wl,--build-id=none -Wl,-s
BENCH_FLAGS := -std=c11 -O2 -Wall -Wextra -Werror

export DENO_NO_UPDATE_CHECK := 1

.PHONY: help demo test test-jsr check native embed bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo      see a kernel operation lose a race and be cancelled"
	@echo "make test      build the native helper, run the tests and the snippets of the documentation"
	@echo "make test-jsr  the tests with the published @std packages instead of the stand-ins in tests/std (needs JSR)"
	@echo "make check     formatting, lint, types, documentation, package, freshness of the embedded helper"
	@echo "make native    build the C helper, for the other CPU too where a cross compiler is installed"
	@echo "make embed     put the built helpers into the modules that the package carries"
	@echo "make bench     compare with Deno's and Node's own I/O; ARGS=\"--json FILE\", ARGS=\"--help\""
	@echo "make clean     remove what was built and installed here"
	@echo "DENO=/path/to/deno chooses the runtime; an older one than $(DENO_MINIMUM) can still run \`make demo test\`."

# --- Deno ---

version_of = $(shell $1 --version 2>/dev/null | sed -n 's/^deno \([0-9.]*\).*/\1/p')
# Not empty when version $1 is $2 or later.
at_least = $(and $1,$(filter $2,$(shell printf '%s\n' $1 $2 | sort -V | head -n 1)))

DENO_VERSION := $(call version_of,$(or $(DENO),deno))
ifdef DENO
ifeq ($(DENO_VERSION),)
$(error DENO=$(DENO) is not a Deno that runs)
endif
else ifneq ($(call at_least,$(DENO_VERSION),$(DENO_MINIMUM)),)
DENO := deno
else
DENO := $(CURDIR)/.tools/deno-$(DENO_PINNED)
DENO_VERSION := $(DENO_PINNED)
INSTALLED_DENO := $(DENO)
endif

DENO_PACKAGE = @deno/linux-$(or $(DENO_CPU_$(HOST)),$(error no Deno is published for Linux on $(HOST)))-glibc
DENO_CPU_x86_64 := x64
DENO_CPU_aarch64 := arm64

# npm checks the tarball against the registry's hash; no package's script runs.
$(CURDIR)/.tools/deno-$(DENO_PINNED):
	@command -v npm >/dev/null || { \
		echo "No Deno $(DENO_MINIMUM) or later is on PATH, and no npm to install Deno $(DENO_PINNED) with." >&2; \
		echo "Install Deno, or npm (Debian: apt-get install npm), or name a Deno: make DENO=/path/to/deno ..." >&2; \
		exit 1; }
	@echo "Installing Deno $(DENO_PINNED) into .tools/ from npm's $(DENO_PACKAGE)"
	@rm -rf .tools/unpacked && mkdir -p .tools/unpacked
	@cd .tools/unpacked && npm pack --silent --ignore-scripts $(DENO_PACKAGE)@$(DENO_PINNED) >/dev/null && tar -xzf *.tgz
	@chmod +x .tools/unpacked/package/deno && mv .tools/unpacked/package/deno $@ && rm -rf .tools/unpacked
	@$@ --version

# --- Tests ---

# Since 2.8 Deno's sanitizers must be asked for.
TEST_FLAGS := $(if $(call at_least,$(DENO_VERSION),2.8.0),--sanitize-ops --sanitize-resources)
ifneq ($(call at_least,$(DENO_VERSION),$(DENO_MINIMUM)),)
TEST := test -P
else
# Before 2.5 "test" holds no permissions; before 2.3 "links" is "patch"; before 2.6 node: types come from the network.
TEST := test --config deno.old.json -A --no-check
TEST_CONFIG := deno.old.json
endif

demo: $(INSTALLED_DENO)
	@$(DENO) run --allow-ffi examples/timeout_race.ts

test: native $(TEST_CONFIG) $(INSTALLED_DENO)
	$(DENO) $(TEST) $(TEST_FLAGS) $(ARGS)
	$(DENO) $(TEST) --doc README.md mod.ts ffi ring scope io

deno.old.json: deno.json
	@sed -e 's/"links"/"patch"/' -e '/"permissions"/d' $< > $@

deno.jsr.json: deno.json
	@sed '/"links"/d' $< > $@

test-jsr: native deno.jsr.json $(INSTALLED_DENO)
	@$(DENO) cache --config deno.jsr.json jsr:@std/assert@^1 jsr:@std/async@^1 || { \
		echo "make test-jsr needs the published @std/assert and @std/async: JSR must be reachable, or cached." >&2; exit 1; }
	$(DENO) test --config deno.jsr.json -P $(TEST_FLAGS) $(ARGS)

# --- The native helper ---

HOST := $(shell uname -m)
NATIVE_SOURCES := $(sort $(wildcard native/*.c native/*.h))
compiler = $(if $(filter $1,$(HOST)),gcc,$1-linux-gnu-gcc)
BUILDABLE := $(foreach cpu,x86_64 aarch64,$(if $(shell command -v $(call compiler,$(cpu)) 2>/dev/null),$(cpu)))
NOT_BUILDABLE := $(filter-out $(BUILDABLE),x86_64 aarch64)
library = native/build/libringscope-$1.so

native: $(foreach cpu,$(BUILDABLE),$(call library,$(cpu)))
	@$(foreach cpu,$(NOT_BUILDABLE),echo "Skipping the helper for $(cpu): no $(call compiler,$(cpu))";)

# Renamed into place, so that a process that has the old one mapped keeps it whole.
native/build/libringscope-%.so: $(NATIVE_SOURCES) Makefile
	@mkdir -p $(@D)
	$(call compiler,$*) $(NATIVE_FLAGS) -o $@.new $(filter %.c,$^)
	@mv $@.new $@

# For each built CPU: its name and what built it.
BUILT = $(foreach cpu,$(BUILDABLE),$(cpu) "$$($(call compiler,$(cpu)) --version | head -n 1)")
EMBED = $(DENO) run --allow-read=native,ffi --allow-write=ffi ffi/embed.ts

embed: native $(INSTALLED_DENO)
	@$(EMBED) write "$(NATIVE_FLAGS)" $(BUILT)
	@$(DENO) fmt --quiet $(foreach cpu,$(BUILDABLE),ffi/embedded_$(cpu).ts)
	@$(foreach cpu,$(NOT_BUILDABLE),echo "Left ffi/embedded_$(cpu).ts alone: no $(call compiler,$(cpu))";)

# --- Checks and benchmarks ---

check: native bench/build/echo_client $(INSTALLED_DENO)
	$(DENO) fmt --check
	$(DENO) lint
	$(DENO) check .
	$(DENO) doc --lint mod.ts
	$(DENO) publish --dry-run --allow-dirty
	@$(EMBED) check "$(NATIVE_FLAGS)" $(BUILT)

bench/build/%: bench/%.c Makefile
	@mkdir -p $(@D)
	gcc $(BENCH_FLAGS) -o $@ $<

bench: native bench/build/echo_client $(INSTALLED_DENO)
	@$(DENO) run -A bench/bench.ts $(ARGS)

clean:
	rm -rf .tools native/build bench/build deno.old.json deno.jsr.json
