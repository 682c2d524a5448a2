# make demo    install what is missing, build, run the real libraries cold and warm beside clang
# make test    install what tests use besides, fetch the real libraries, run every test
# make test-slow   the tests that take minutes: tens of thousands of mutated inputs
# make build   release build: target/release/hotbed and its plugin beside it
# make check   formatting, clippy and rustdoc, warnings denied
# make bench   every figure that is claimed, peers measured in the same run
.PHONY: demo test test-slow build check bench clean
.NOTPARALLEL:
CARGO ?= cargo

build:
	@scripts/setup
	$(CARGO) build --release --workspace

demo:
	@scripts/setup --demo
	$(CARGO) build --release --workspace
	@scripts/fetch-inputs
	@scripts/demo

test:
	@scripts/setup --tests
	@scripts/fetch-inputs
	$(CARGO) build --workspace
	$(CARGO) test --workspace

test-slow:
	@scripts/setup --tests
	@scripts/fetch-inputs all
	$(CARGO) build --workspace
	$(CARGO) test --test hotbed -- --ignored
	$(CARGO) test -p hotbed-jit --lib -- --ignored split::tests::libraries
	$(CARGO) test -p hotbed-jit split::tests::libraries -- --ignored

check:
	@scripts/setup
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

bench:
	@scripts/setup --tests
	$(CARGO) build --release --workspace
	@scripts/fetch-inputs
	$(CARGO) run --release -p hotbed-bench -- run --write

clean:
	$(CARGO) clean
	rm -rf .cache
