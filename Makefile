# make demo     install, then draw the gallery of demo/
# make studio   install, then the studio in the browser
# make test     install, then the tests (ten minutes on two cores, a little more without AVX-512)
# make lint     ruff, mypy, and the check that dependencies point one way
# make parity   exactness against diffusers at full Stable Diffusion size (SD 1.5 and 2.1: 7 GB of memory, XL: 18)
# make cluster-test  the same hints from a local Ray cluster (installs ray)
# make kernel-test   the kernels for graphics cards, by Triton's interpreter (fetches Triton, 190 MB, beside the environment)
# make card-test     the same and more on a graphics card
# make deepspeed-test  two processes of DeepSpeed, on processors (builds DeepSpeed in an environment of its own)
# make tracker-test  Weights & Biases and Trackio hear a run, without a network (an environment of their own)
# make web-test  the studio's page, driven in Chromium (installs Debian's where there is none, as root)
# make fuzz     10,000 mutated inputs a target: pictures, lists, archives, weights, caches, runs, recipes, options
# make api-test two clients of A1111's interface at a real server, 2,000 random bodies of it, and 10,000 requests made
#               from the schema of ours (COUNT=1000: fewer)
# make house    a row of figures a folder: files, lines, longest function
# make figures  measure again what the README reports, and rewrite its tables (an hour)
# make paper    reproduce the paper's figures that need no training, and rewrite its pages in docs
# make pictures draw the README's gallery again
# make clean    remove the environment and everything made by these commands

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRACKERS := $(VENV)-trackers
KERNELS := $(VENV)-kernels
ZERO := $(VENV)-deepspeed

.PHONY: install demo studio test slow-test lint format parity cluster-test tracker-test kernel-test card-test deepspeed-test web-test fuzz api-test house figures paper pictures clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "zeroconv needs Python 3.11 or newer, not $$($(PYTHON) --version); say which with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

studio: $(STAMP)
	$(BIN)/zeroconv studio

demo: $(STAMP)
	$(BIN)/zeroconv demo --out demo

# a worker a core, one thread each: small tensors gain nothing from threads; a file's tests share its fixtures.
# MKL_CBWR: the same product at another place in memory is the same bit for bit, which an AMD processor without AVX-512
# does not keep to by itself
test: $(STAMP)
	MKL_CBWR=AUTO OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# whole trainings, killed and cut up, two processes, compilers
slow-test: $(STAMP)
	MKL_CBWR=AUTO OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(STAMP)
	MKL_CBWR=AUTO $(BIN)/python -m pytest -m parity -s

cluster-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	RAY_DATA_DISABLE_PROGRESS_BARS=1 $(BIN)/python -m pytest -m cluster

# Triton stays out of the environment: torch's build for processors has none, and would find it
kernel-test: $(STAMP)
	test -d $(KERNELS)/triton || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(KERNELS) triton==3.6.0
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 PYTHONPATH=$(KERNELS) $(BIN)/python -m pytest -m kernels -n auto --maxprocesses 4 tests/layers/test_kernels.py

card-test: $(STAMP)
	$(BIN)/python -m pytest -m "kernels or card" tests/layers tests/training

# over the packages of the first environment: DeepSpeed would have tests of other things find it
deepspeed-test: $(STAMP)
	test -x $(ZERO)/bin/python || $(PYTHON) -m venv $(ZERO)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(ZERO)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth
	$(ZERO)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt deepspeed
	MKL_CBWR=AUTO OMP_NUM_THREADS=1 $(ZERO)/bin/python -m pytest -m deepspeed tests/training/execution/test_deepspeed.py

# Trackio wants an older Pillow than the rest
tracker-test:
	test -x $(TRACKERS)/bin/python || $(PYTHON) -m venv $(TRACKERS)
	grep -v '^pillow==' constraints.txt > $(TRACKERS)/constraints.txt
	$(TRACKERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $(TRACKERS)/constraints.txt -e '.[dev,wandb,trackio]'
	$(TRACKERS)/bin/python -m pytest -m trackers

# one process: the pages share a server; Chromium is Debian's, as no package of PyPI brings one
web-test: $(STAMP)
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && apt-get install -qq -y chromium > /dev/null; } || { echo "make web-test needs chromium: install it (Debian: apt-get install chromium) and try again"; exit 1; }
	MKL_CBWR=AUTO OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m web tests/web

fuzz: $(STAMP)
	$(BIN)/python -m tools.fuzz --count $(or $(COUNT),10000) --seed $(or $(SEED),0)

# webuiapi and sd-backend-client, unchanged, at a loopback port
api-test: $(STAMP)
	MKL_CBWR=AUTO OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m api tests/serving/a1111
	$(BIN)/python -W ignore -m tests.helpers.api_fuzz --count $(or $(COUNT),10000)

house: $(STAMP)
	$(BIN)/python -m tools.house zeroconv tools benchmarks experiments

figures: $(STAMP)
	for name in quality.base quality.control quality.reader speed.annotate speed.generation \
	    "quality.family measure" "quality.family table" figures; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; done

paper: $(STAMP)
	$(BIN)/zeroconv reproduce shipped
	$(BIN)/python -m experiments.page

# the pictures of the README: the gallery that `make demo` draws
pictures: demo
	cp demo/gallery.png docs/pictures/gallery.png

clean:
	rm -rf $(VENV) $(TRACKERS) $(KERNELS) $(ZERO) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
