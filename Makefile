# Every target sets up what it needs. On Windows without make: bin\lora.cmd does the work of `setup` and `lora`.
PY = .venv/bin/python
RESOLVE = $(PY) -m uv pip compile -q --all-extras --python-version 3.11 --no-emit-index-url --no-emit-find-links
export UV_CUSTOM_COMPILE_COMMAND = make lock

# Values come from the command line alone, and raw: nothing in them is expanded, split or run.
$(foreach v,NAME RECIPE BASE FROM TO TEXT STAGE UNTIL,$(eval override $v := $(if $(filter command,$(origin $v)),$$(value $v))))
export NAME RECIPE BASE FROM TO TEXT STAGE UNTIL
unexport MAKEFLAGS MFLAGS MAKELEVEL

# With -q and `+` lines, GNU make 4 ends silently (status 1) when a line fails, so the last line is our own.
ifeq (,$(findstring n,$(firstword -$(MAKEFLAGS))))
MAKEFLAGS += -q
do = +@
endif

.PHONY: help setup lora watch overnight test test-all check fix docs bench pocket lock clean

help: ## this list
	$(do)awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## make the environment in .venv, or bring it up to date
	$(do)bin/lora --setup && echo "Ready. Next: make lora NAME=demo" || exit 1

lora: ## make a LoRA: make lora NAME=anna [RECIPE= BASE= FROM= TO= TEXT=]
	$(do)[ -n "$$NAME" ] || { echo "make lora: no NAME given; for example: make lora NAME=demo" >&2; exit 1; }; \
	set -- make; \
	[ -z "$$RECIPE" ] || set -- "$$@" --recipe "$$RECIPE"; \
	[ -z "$$BASE" ] || set -- "$$@" --base "$$BASE"; \
	[ -z "$$FROM" ] || set -- "$$@" --from "$$FROM"; \
	[ -z "$$TO" ] || set -- "$$@" --to "$$TO"; \
	[ -z "$$TEXT" ] || set -- "$$@" --text "$$TEXT"; \
	bin/lora "$$@" -- "$$NAME" || exit 1

watch: ## make what is dropped into the inbox, until Ctrl-C: make watch
	$(do)bin/lora watch; code=$$?; [ $$code -eq 75 ] || [ $$code -eq 0 ] || exit 1

overnight: ## make many LoRAs, the shortest first: make overnight [FROM=FOLDER UNTIL=07:30]
	$(do)set --; \
	[ -z "$$UNTIL" ] || set -- "$$@" --until "$$UNTIL"; \
	[ -z "$$FROM" ] || set -- "$$@" -- "$$FROM"; \
	bin/lora overnight "$$@"; code=$$?; [ $$code -eq 75 ] || [ $$code -eq 0 ] || exit 1

test: ## run the tests
	$(do)bin/lora --setup dev && OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup || exit 1

test-all: ## run the tests with the long ones, and those for a GPU where there is one
	$(do)bin/lora --setup dev && OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup -m "" || exit 1

check: ## style, types, generated pages, the lock on every system; the largest files and functions
	$(do)bin/lora --setup dev || exit 1; \
	failed=; try() { what=$$1; shift; "$$@" || failed="$$failed, $$what"; }; \
	try "ruff check (make fix)" $(PY) -m ruff check .; \
	try "ruff format (make fix)" $(PY) -m ruff format --check .; \
	try mypy $(PY) -m mypy; \
	try "README (make docs)" $(PY) -m cogapp --check README.md; \
	for os in linux windows macos; do \
	  try "the lock on $$os (make lock)" env MACOSX_DEPLOYMENT_TARGET=14.0 \
	    $(RESOLVE) --python-platform $$os --only-binary :all: --no-binary dadaptation -c requirements.lock -o .venv/lock-$$os.txt pyproject.toml; \
	done; \
	try "the lock (make lock)" sh -c 'cp requirements.lock .venv/lock.txt && \
	  $(RESOLVE) --universal -o .venv/lock.txt pyproject.toml && diff requirements.lock .venv/lock.txt'; \
	$(PY) -c "$$SIZES"; \
	[ -z "$$failed" ] || { echo "make check: failed: $${failed#, }" >&2; exit 1; }; \
	echo "make check: all is well"

fix: ## mend what ruff can mend, and the generated parts of the README
	$(do)bin/lora --setup dev && $(PY) -m ruff check --fix . && $(PY) -m ruff format . \
	  && $(PY) -m cogapp -r README.md || exit 1

docs: ## write the generated parts of the README
	$(do)bin/lora --setup dev && $(PY) -m cogapp -r README.md || exit 1

bench: ## run the benchmarks in tests/bench
	$(do)bin/lora --setup dev || exit 1; \
	for bench in tests/bench/bench_*.py; do [ ! -e "$$bench" ] || $(PY) "$$bench" || exit 1; done

pocket: ## train the embedded models again, hours: make pocket [STAGE=clip]
	$(do)bin/lora --setup dev && $(PY) -m lorafactory.pocket.train $${STAGE:+"$$STAGE"} || exit 1

lock: ## write requirements.lock anew for pyproject.toml, keeping what still fits
	$(do)bin/lora --setup dev && $(RESOLVE) --universal -o requirements.lock pyproject.toml || exit 1

clean: ## remove build outputs and caches, nothing else
	$(do)for d in build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	  $$(find bin lorafactory tests -name __pycache__ 2>/dev/null); do \
	  [ ! -d "$$d" ] || { echo "removing $$d" && rm -r "$$d"; } || exit 1; done

define SIZES
import ast, pathlib
files, functions = [], []
for path in (p for top in ("bin", "lorafactory", "tests") for p in pathlib.Path(top).rglob("*.py")):
    text = path.read_text(encoding="utf-8")
    files.append((len(text.splitlines()), path))
    functions += [(n.end_lineno - n.lineno + 1, f"{path}:{n.name}")
                  for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
for lines, name in sorted(files, reverse=True)[:5] + sorted(functions, reverse=True)[:5]:
    print(f"{lines:5} {name}")
endef
export SIZES
