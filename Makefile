# make demo                  the whole pipeline on painted slides, about 8 minutes on 2 cores
# make demo SLIDES=path      the same on your own slides: a folder, a CSV or one slide
# make demo SLIDES=path MPP=0.25    likewise, of images that do not say their µm/px
# make test                  all tests but SLURM's, two files at a time (JOBS=2)
# make test-slurm            the pipeline on a real SLURM of two nodes: root, Debian; about 6 minutes
# make soak                  kills by the dozen: a quarter of an hour
# make bench                 every benchmark (bench/README.md)
# make lint                  ruff and pyright

PYTHON ?= python3
# Tests at a time; a file's tests stay together, so that what they share is made once.
JOBS ?= 2
export SLIDES MPP BENCHMARK OUT

.PHONY: demo test test-slurm soak bench lint

demo: .venv/installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash demo/run.sh

test: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 20

test-slurm: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m slurm $(FLAGS) tests/slurm

soak: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m soak

bench: .venv/installed
	for script in $(filter-out bench/gpu.py,$(wildcard bench/*.py)); do .venv/bin/python $$script || exit 1; done

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright

# The stamp is made last: an install that was cut short is done again.
.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -c 'import venv, ensurepip' || { echo 'Debian/Ubuntu: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --editable '.[test]'
	touch $@
