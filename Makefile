# Trainyard: `make` says what there is. Needs Rust, Python 3 and a C++ compiler; libtorch is fetched once.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help libtorch kernels gpu-check build run check test test-kernels test-plain test-torch clean

PIPELINE ?= pipelines/digits.toml
CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
# The folder of libtorch; the script prints it and, the first time, fetches it into ~/.cache/trainyard.
FIND_LIBTORCH = python3 scripts/libtorch.py
WITH_LIBTORCH = libtorch="$$($(FIND_LIBTORCH))" && LIBTORCH="$$libtorch"

help: ## Show this list
	@echo "Trainyard. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PIPELINE=$(PIPELINE)  LIBTORCH=folder of a libtorch 2.11.0 (fetched when unset)"

libtorch: ## Fetch libtorch, if it is not there, and print its folder
	@$(FIND_LIBTORCH)

kernels: ## Build the PTX of the CUDA kernels (NVRTC is fetched once) and show registers and spills
	python3 scripts/kernels.py

TRAINYARD ?= $(TARGET)/release/trainyard
gpu-check: ## Check the kernels, their speed, packing and a training on this machine's GPU, within ten minutes
ifeq ($(origin TRAINYARD),file)
	@if ! command -v $(CARGO) >/dev/null 2>&1; then echo "no $(CARGO) here: using $(TRAINYARD) as it is"; \
	elif libtorch="$$($(FIND_LIBTORCH) --offline 2>/dev/null)"; then \
		LIBTORCH="$$libtorch" $(CARGO) build --release --features torch; \
	else $(CARGO) build --release; fi
endif
	@if test -x $(dir $(TRAINYARD))trainyard-ops; then set -- --pipeline pipelines/digits.toml; \
	else echo "no training is checked: \`make build\` first builds the stages for it"; set --; fi; \
	$(TRAINYARD) gpu-check --json gpu-check.json "$$@"

build: ## Build the release binaries, built-in stages included
	@$(WITH_LIBTORCH) $(CARGO) build --release --features torch
	@echo "built $(TARGET)/release/trainyard and $(TARGET)/release/trainyard-ops"

run: build ## Build, then run a pipeline (PIPELINE=pipelines/digits.toml)
	$(TARGET)/release/trainyard run $(PIPELINE)

check: ## Check formatting, lints and documentation, without and with the built-in stages
	@echo "== format"
	$(CARGO) fmt --check
	@echo "== lints, plain build"
	$(CARGO) clippy --all-targets -- -D warnings
	@echo "== documentation"
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
	@echo "== lints, with the built-in stages"
	@$(WITH_LIBTORCH) $(CARGO) clippy --all-targets --features torch -- -D warnings

test: check test-kernels test-plain test-torch ## Check, then test the kernels, then without libtorch, then with it
	@echo "== all tests passed"

test-kernels: ## Check that the PTX is, byte for byte, what the kernels compile to; show registers and spills
	@echo "== kernels, compiled again"
	python3 scripts/kernels.py --check

test-plain: ## Test without libtorch
	@echo "== tests, plain build (no libtorch)"
	$(CARGO) test --no-fail-fast

test-torch: ## Test with the built-in stages
	@echo "== tests, with the built-in stages on libtorch"
	@$(WITH_LIBTORCH) $(CARGO) test --no-fail-fast --features torch

clean: ## Remove what was built and what pipelines wrote; the fetched libtorch stays
	$(CARGO) clean
	rm -rf pipelines/work pipelines/.trainyard
