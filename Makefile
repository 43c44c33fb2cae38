# `make demo` and `make test` do all the set-up by themselves, in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-all test-kernels check bench docs clean

demo: $(VENV)/.ready
	mkdir -p demo-output
	$(BIN)/skipsr upscale src/skipsr/assets/sample.mp4 demo-output/sample-x4.mp4 --overwrite
	$(BIN)/skipsr mask src/skipsr/assets/sample.mp4 demo-output/sample-mask.mp4 --overwrite \
		--device cpu --dtype float32  # where layers are faster, so small a clip may be run whole
	@echo "see demo-output/sample-x4.mp4, enlarged from src/skipsr/assets/sample.mp4, and demo-output/sample-mask.mp4:"
	@echo "blue is what a processor leaves out. Your own: $(BIN)/skipsr upscale in.mp4 out.mp4"

test: $(VENV)/.ready-dev
	$(BIN)/pytest -n 2 --dist worksteal

test-all: $(VENV)/.ready-dev
	$(BIN)/pytest -n 2 --dist worksteal -m ""

# the Triton kernels by its interpreter, where torch brings no Triton along
test-kernels: $(VENV)/.ready-dev
	$(BIN)/pip install --quiet 'triton>=3.2'
	$(BIN)/pytest -n 2 --dist worksteal tests/kernels

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site
	@echo "see build/site/index.html"

bench: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/skipping_pays.py
	$(BIN)/python benchmarks/long_clip.py

# without an NVIDIA driver a fixed version of torch, of which pip takes the processor's build where an index has it
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("skipsr needs Python 3.11 or later: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV): Python packages, a gigabyte or more, for some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $$(command -v nvidia-smi >/dev/null && echo torch || echo torch==2.13.0)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-output build .pytest_cache .ruff_cache .hypothesis
