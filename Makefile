# make demo                  the whole pipeline on painted slides, about 7 minutes on 2 cores
# make demo SLIDES=path      the same on your own slides: a folder, a CSV or one slide
# make demo SLIDES=path MPP=0.25    likewise, of images that do not say their µm/px
# make test                  all tests but SLURM's, two files at a time (JOBS=2)
# make test-slurm            the pipeline on a real SLURM of two nodes: root, Debian; about 6 minutes
# make soak                  kills by the dozen: a quarter of an hour
# make bench                 every benchmark (bench/README.md)
# make lint                  ruff and pyright
# make install               only what the others do first: .venv, with the versions of requirements.lock
# make install LOCK=         the newest versions that setup.cfg allows instead
# make lock                  write requirements.lock from .venv

PYTHON ?= python3
# Tests at a time; a file's tests stay together, so that what they share is made once. The longest
# files come first (tests/conftest.py).
JOBS ?= 2
# Constraints of pip: what CI ran. Where it has no wheels for your Python: make … LOCK=
LOCK ?= requirements.lock
export SLIDES MPP BENCHMARK OUT

.PHONY: install lock demo test test-slurm soak bench lint

install: .venv/installed
	@echo 'installed; next: . .venv/bin/activate, or make demo'

demo: .venv/installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash demo/run.sh

test: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile \
	    --no-loadscope-reorder --durations 20

test-slurm: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m slurm $(FLAGS) tests/slurm

soak: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m soak

bench: .venv/installed
	failed=; for script in $(filter-out bench/gpu.py,$(wildcard bench/*.py)); do \
	    .venv/bin/python $$script || failed="$$failed $$script"; done; \
	    [ -z "$$failed" ] || { echo "error: not measured:$$failed"; exit 1; }

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright

# torch is one of many builds, 2.9.1+cpu; a pin without the local part takes any of them.
lock: .venv/installed
	{ echo '# The versions that CI ran, as constraints of pip (make install). Made by: make lock'; \
	  .venv/bin/python -m pip freeze --exclude-editable | grep == | sed 's/+[A-Za-z0-9.]*$$//'; } > requirements.lock

# The stamp is made last: an install that was cut short is done again.
.venv/installed: setup.cfg pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -c 'import venv, ensurepip' || { echo 'Debian/Ubuntu: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check $(if $(LOCK),--constraint $(LOCK)) --editable '.[test]' || \
	    { echo 'error: not installed; where the locked versions are the cause: make install LOCK='; exit 1; }
	touch $@
