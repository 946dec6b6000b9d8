# Two commands do everything: make run, make test. The rest is for those who work on fedbatch.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
export OMP_WAIT_POLICY := PASSIVE

.PHONY: run test check mutants docs soak bench deploy-demo data figures clean

run: $(VENV)/installed
	$(BIN)/fedbatch

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2

check: $(VENV)/installed-test docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Each guarantee of a private run broken in turn: does a test see it? Some seven minutes.
mutants: $(VENV)/installed-test
	$(BIN)/python -m tests.privacy.mutate

# The documentation as a site. Its pages open from disk; their search needs a server: python3 -m http.server -d build/site
docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

# A thousand rounds: growth of memory and of open descriptors.
soak: $(VENV)/installed
	$(BIN)/python -m simulations.soak

figures: $(VENV)/installed
	$(BIN)/python -m simulations.first_run

# pfl by itself: it asks for older packages than fedbatch has, see the requirements.
bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'pfl==0.6.*' 'prv-accountant==0.2.*'
	$(BIN)/python -m benchmarks --threads 1 --models mlp --json docs/results/bench.json
	$(BIN)/python -m benchmarks --quick --threads 1 --models cnn resnet gpt --json docs/results/bench_networks.json
	$(BIN)/python -m benchmarks.scaling --json docs/results/scaling.json
	$(BIN)/python -m benchmarks.dp_step --json docs/results/dp_step.json
	$(BIN)/python -m benchmarks.optimizer_step --json docs/results/optimizer_step.json
	$(BIN)/python -m benchmarks.active --json docs/results/active_scale.json

# A SuperLink and two SuperNodes with certificates and data of their own, as processes on this machine.
deploy-demo: $(VENV)/installed
	$(BIN)/python -m simulations.deployment

data: $(VENV)/installed
	$(BIN)/python -m fedbatch.data.prepare.fetch_fashion_mnist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
# torch first and by its exact pin, so that the CPU build is taken where that is what there is.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(shell grep '^torch==' constraints.txt)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dp]"
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,ray]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
