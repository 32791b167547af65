# Each target sets up what it needs: a fresh machine with Python (>= 3.11) and make is enough.
PYTHON ?= python3
DIFFREP := .venv/bin/diffrep

.PHONY: setup demo test test-fast test-long test-pages docs lint house clean numbers mutants faults test-lowest test-wheel bench peers

setup: .venv/.ready

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("diffrep needs Python 3.11 or newer; name one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "installing packages: a minute or two, once"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e .
	touch $@

.venv/.ready: .venv/.installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,hub,priors,trackers,export,cells,scanpy,diffusers,hdf5,zarr,nifti,tiff]'
	touch $@

demo: .venv/.installed  # without the extras that tests need
	$(DIFFREP) train --data digits --method vae-vdm --out runs/demo --budget 90s
	$(DIFFREP) sample runs/demo -n 64 -o runs/demo/samples.png
	$(DIFFREP) reconstruct runs/demo digits -o runs/demo/reconstructions.png
	$(DIFFREP) interpolate runs/demo 0 1 -o runs/demo/interpolation.png
	$(DIFFREP) evaluate runs/demo
	$(DIFFREP) probe runs/demo
	$(DIFFREP) profile runs/demo
	$(DIFFREP) report runs/demo

test: setup lint
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not long"

test-long: setup
	.venv/bin/python -m pytest -n 2 --dist worksteal -m long

test-fast: setup
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not long"

test-pages: setup build/axe.min.js  # in a real Chromium, with the accessibility check of axe-core
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,browser]'
	DIFFREP_BROWSER=1 AXE=$(CURDIR)/build/axe.min.js .venv/bin/python -m pytest tests/pages

build/axe.min.js:  # one version, so that a new rule of it does not fail a test here
	mkdir -p build
	cd build && npm pack --silent axe-core@4.14.1 && tar -xzf axe-core-4.14.1.tgz --strip-components=1 package/axe.min.js && rm axe-core-4.14.1.tgz

docs: setup
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	.venv/bin/python docs/write_pages.py
	.venv/bin/mkdocs build --strict --quiet --site-dir build/site

lint: setup
	.venv/bin/ruff check src tests benchmarks docs
	.venv/bin/ruff format --check src tests benchmarks docs
	.venv/bin/mypy

house: setup
	.venv/bin/python docs/draw_house.py

bench: setup  # minutes on a quiet machine: what each part costs, held against the best convolution
	.venv/bin/python benchmarks/bench.py --out results/bench.json

peers: build/peers/.ready  # minutes: training steps beside those of other libraries, which have an environment of their own
	OMP_NUM_THREADS=1 build/peers/bin/python benchmarks/peers.py --out results/peers.json

build/peers/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[peers]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info

numbers: setup  # a number changed on purpose: what tests/general/numbers keeps is written anew, in minutes
	rm -rf tests/general/numbers
	DIFFREP_NUMBERS=write .venv/bin/python -m pytest -q $$(grep -rl "^from locked import" tests)

mutants: setup  # about an hour on two cores: single mistakes, and the test that notices each
	.venv/bin/python tests/mutants/run.py

faults: setup  # hours on one core: kills, broken disks, changed bytes, odd inputs; stopped, it goes on where it was
	OMP_NUM_THREADS=1 .venv/bin/python tests/faults/run.py --out results/faults.json

test-lowest:  # the suite with the oldest versions that pyproject.toml states
	$(PYTHON) tests/lowest.py

test-wheel:  # the wheel, in a bare environment outside of this tree
	$(PYTHON) tests/wheel.py
