# Everyday commands. Each makes .venv with pinned packages when it is not there, and builds when sources changed.
#
#   make demo [MNIST=FOLDER]    train on real digits with five poolings, draw how they learn
#   make gallery                run every program of examples/ in full, half an hour; results go to examples/results
#   make docs                   build the site, in build/site
#   make docs-check             open every page of it in a browser that shows nothing; SCREENSHOTS=FOLDER
#   make docs-links             follow its links to other sites
#   make test                   run the tests
#   make mutants [ONLY=NAME]    small faults of the library, of which the tests must notice each; half an hour
#   make sanitize               run them under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer; needs g++
#   make fuzz [MINUTES=60]      try random calls of every function against the reference; SEED=, JOBS=
#   make lint, make format      check, or set, the form of the code
#   make bench, bench-quick     time every operation against its rivals and the memory
#   make bench-schedules        tell where another CPU schedule is faster than the chosen one
#   make gpu, gpu-more          on a CUDA card, five minutes each, with PYTHON's own torch instead of .venv: tests and the
#                               rows that matter most; sanitizers, counters, more rows. OUT=FOLDER gets logs and rows,
#                               DRY=1 prints the steps
#   make gpu-module             build the module for another Python and torch beforehand: GPU_PYTHON=, GPU_TORCH=
#   make cuda-report            registers, limits and instructions of every CUDA kernel; needs nvcc and nvdisasm, no card
#   make build
#
# FASTPOOL_CUDA=auto|0|1, FASTPOOL_EMULATION=0|1 (1 in `make test`), TORCH_CUDA_ARCH_LIST, MAX_JOBS, DEBUG and CXXFLAGS go
# to the build; PYTHON is the interpreter to start from.

SHELL := bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3
FASTPOOL_CUDA ?= auto
export FASTPOOL_CUDA
export PYTHONPATH := $(CURDIR)

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
PACKAGES := numpy setuptools wheel ninja pybind11 pytest scikit-learn scikit-image matplotlib ruff mypy clang-format
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)
# What ninja prints, without the commands.
SHORTER = sed -E 's|^(\[[0-9]+/[0-9]+\]) .* -c $(CURDIR)/([^ ]+) -o .*|\1 \2|'
CXX_FILES = $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo gallery docs docs-check docs-links test mutants sanitize sanitize-address sanitize-undefined sanitize-thread fuzz lint format bench bench-quick bench-schedules gpu gpu-more gpu-module cuda-report build FORCE

demo: build
	@$(RUN) examples/digits.py --seeds 1 --poolings max average mixed stochastic pyramid \
	  $(if $(MNIST),--mnist "$(MNIST)" --threads $(shell getconf _NPROCESSORS_ONLN))

GALLERY := poolings digits segmentation resnet gan attention any_size
gallery: build
	@for program in $(GALLERY); do $(RUN) examples/$$program.py --out examples/results || exit 1; done

docs: build $(VENV)/docs
	@$(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs build/site
	@echo "the site is build/site/index.html"

docs-check: docs
	@$(RUN) docs/check.py $(if $(SCREENSHOTS),--screenshots "$(SCREENSHOTS)")

docs-links: $(VENV)/docs build
	@$(RUN) -m sphinx --builder linkcheck --keep-going --quiet docs build/links

# On a busy machine threads that wait by spinning keep each other from running: ten times slower.
test: export FASTPOOL_EMULATION := 1
test: build
	@OMP_WAIT_POLICY=passive $(RUN) -m pytest

mutants: $(VENV)/installed
	@$(RUN) tests/mutants.py $(if $(ONLY),--only "$(ONLY)")

# Each has a build of its own. Scopes of locals are left out, which take ten times as long to compile, and null pointers,
# which end the process anyway; vectors are loaded from any address by design. Python lets signed numbers wrap.
build/address: FLAGS := -fsanitize=address,undefined -fno-wrapv \
  -fno-sanitize=null,alignment,object-size,vptr -fno-sanitize-address-use-after-scope \
  --param=asan-instrumentation-with-call-threshold=0
build/undefined: FLAGS := -fsanitize=alignment,bounds,shift,signed-integer-overflow -fno-wrapv
build/thread: FLAGS := -fsanitize=thread
# The emulated CUDA threads are fibers of one thread.
build/address build/undefined: export FASTPOOL_EMULATION := 1
build/thread: export FASTPOOL_EMULATION := 0
build/address build/undefined build/thread: export FASTPOOL_CUDA := 0
build/address build/undefined build/thread: $(VENV)/installed FORCE
	@echo "building fastpool in $@"
	@CXXFLAGS="$(FLAGS) -fno-omit-frame-pointer -g1" LDFLAGS="$(filter -fsanitize=%,$(FLAGS))" \
	  $(RUN) setup.py --quiet build --build-base $@ --build-lib $@ 2>&1 | $(SHORTER)

# Exceptions pass through the runtime, which looks for their library before Python has loaded it.
RUNTIME = $(shell $(CXX) -print-file-name=lib$(1).so) $(shell $(CXX) -print-file-name=libstdc++.so)
sanitize: sanitize-undefined sanitize-address sanitize-thread
sanitize-address sanitize-undefined sanitize-thread: export OMP_WAIT_POLICY := passive
sanitize-address sanitize-undefined sanitize-thread: export FASTPOOL_TEST_HUGE := 0
sanitize-address sanitize-undefined: export UBSAN_OPTIONS := halt_on_error=1:print_stacktrace=1:suppressions=$(CURDIR)/tests/ubsan.supp

# Python and torch give back little of what they hold when they end, so leaks are tests/test_faults.py's to find. What
# crashes on purpose ends otherwise here.
sanitize-address: export PYTHONPATH := $(CURDIR)/build/address
sanitize-address: export ASAN_OPTIONS := detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192:suppressions=$(CURDIR)/tests/asan.supp
sanitize-address: build/address
	@LD_PRELOAD="$(call RUNTIME,asan) $(call RUNTIME,stdc++)" $(RUN) tests/damaged.py
	@LD_PRELOAD="$(call RUNTIME,asan) $(call RUNTIME,stdc++)" $(VENV)/bin/pytest --capture=no -m 'not multiprocess' --ignore=tests/test_compile.py --ignore=tests/test_demo.py --ignore=tests/test_onnx.py --ignore=tests/test_typing.py \
	  -k 'not peak_memory and not nothing_leaks and not fence_holds and not a_crash_tells and not compiles'

# The CUDA kernels, emulated: in minutes, and with what a device asks of addresses.
sanitize-undefined: export PYTHONPATH := $(CURDIR)/build/undefined
sanitize-undefined: build/undefined
	@$(VENV)/bin/pytest --capture=no tests/test_cuda_schedules.py tests/test_cuda_memory.py

# What runs in parallel. OpenMP's fork and join, which ThreadSanitizer does not see, are told by tests/tell_tsan.cpp.
sanitize-thread: export PYTHONPATH := $(CURDIR)/build/thread
sanitize-thread: export TSAN_OPTIONS := halt_on_error=1:suppressions=$(CURDIR)/tests/tsan.supp
sanitize-thread: build/thread
	@$(CXX) -shared -fPIC -O1 tests/tell_tsan.cpp -o build/thread/tell_tsan.so -ldl
	@LD_PRELOAD="$(call RUNTIME,tsan) $(CURDIR)/build/thread/tell_tsan.so" setarch --addr-no-randomize \
	  $(VENV)/bin/pytest --capture=no tests/test_determinism.py tests/test_faults.py -k 'threads'

MINUTES ?= 60
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
fuzz: build
	@$(RUN) tests/fuzz.py --minutes $(MINUTES) --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/installed
	$(RUN) fastpool/_write.py --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/installed
	$(RUN) fastpool/_write.py
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(CXX_FILES)

bench: build $(VENV)/rivals
	@$(RUN) benchmarks/run.py

bench-quick: build $(VENV)/rivals
	@$(RUN) benchmarks/run.py --quick

bench-schedules: build
	@$(RUN) benchmarks/schedules.py

# Steps of their own, each with a time limit.
gpu:
	@$(PYTHON) benchmarks/gpu.py first $(if $(OUT),--out "$(OUT)") $(if $(DRY),--dry)

gpu-more:
	@$(PYTHON) benchmarks/gpu.py more $(if $(OUT),--out "$(OUT)") $(if $(DRY),--dry)

# One for each Python and torch. An older torch may want an older setuptools than .venv's.
GPU_PYTHON ?= python3.12
GPU_TORCH ?= 2.11.0
GPU_VENV = build/gpu-$(notdir $(GPU_PYTHON))-torch$(GPU_TORCH)
gpu-module: export FASTPOOL_CUDA := 1
gpu-module: export FASTPOOL_EMULATION := 0
gpu-module: export TORCH_CUDA_ARCH_LIST := $(or $(TORCH_CUDA_ARCH_LIST),9.0)
gpu-module: PIP = $(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
  --constraint <(grep -vE '^(torch|setuptools)=' constraints.txt) numpy setuptools wheel ninja pybind11 pytest
gpu-module:
	@command -v $(GPU_PYTHON) >/dev/null || { echo "make: no $(GPU_PYTHON) here; name one with GPU_PYTHON=..." >&2; exit 1; }
	@test -x $(GPU_VENV)/bin/python || $(GPU_PYTHON) -m venv $(GPU_VENV)
	@echo "installing torch $(GPU_TORCH) in $(GPU_VENV)"
	@$(PIP) torch==$(GPU_TORCH)+cpu 2>/dev/null || $(PIP) torch==$(GPU_TORCH)
	@echo "building fastpool for it and CUDA architecture $(TORCH_CUDA_ARCH_LIST)"
	@$(GPU_VENV)/bin/python setup.py --quiet build_ext --inplace --build-temp $(GPU_VENV)/temp 2>&1 | $(SHORTER)
	@$(GPU_VENV)/bin/python -c 'import fastpool._C as module; print(module.__file__, module.build_info())'
# It may have taken the place of .venv's own.
	@rm -f $(VENV)/built

cuda-report:
	@$(PYTHON) benchmarks/registers.py $(TORCH_CUDA_ARCH_LIST)

build: $(VENV)/built

$(VENV)/installed: constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; name one with PYTHON=..." >&2; exit 1; }
	@test -x $(RUN) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing torch $(TORCH) for the CPU and the other pinned packages"
# The CPU build where pip knows one by that name.
	@$(PIP) torch==$(TORCH)+cpu 2>/dev/null \
	  || $(PIP) torch==$(TORCH)
	@$(PIP) $(PACKAGES)
	@$(PIP) onnx onnxruntime onnxscript || echo "going on without ONNX, whose tests will be skipped"
	@touch $@

$(VENV)/docs: $(VENV)/installed
	@$(PIP) sphinx sphinx-gallery furo sphinx-copybutton sphinx-design myst-parser ziamath playwright
	@touch $@

$(VENV)/rivals: $(VENV)/installed
	@$(PIP) onnx onnxruntime openvino || echo "going on without ONNX Runtime and OpenVINO"
	@touch $@

# A changed option, or an extension deleted by hand, means a new build.
$(VENV)/options: FORCE | $(VENV)/installed
	@echo '$(FASTPOOL_CUDA) $(FASTPOOL_EMULATION) $(TORCH_CUDA_ARCH_LIST) $(DEBUG) $(CXX)' | cmp -s - $@ \
	  || echo '$(FASTPOOL_CUDA) $(FASTPOOL_EMULATION) $(TORCH_CUDA_ARCH_LIST) $(DEBUG) $(CXX)' > $@

$(VENV)/built: $(VENV)/installed $(VENV)/options $(SOURCES) $(if $(wildcard fastpool/_C*.so),,FORCE)
	@command -v $(CXX) >/dev/null || { echo "make: no C++ compiler ($(CXX)); on Debian and Ubuntu: apt install g++" >&2; exit 1; }
	@echo "building fastpool"
	@$(RUN) setup.py --quiet build_ext --inplace 2>&1 | $(SHORTER)
	@touch $@
