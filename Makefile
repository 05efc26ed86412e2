# `make search` tries the whole path on synthetic films; `make test` runs the tests. Both make the environment first.
PYTHON ?= python3
# One environment for each set of versions, shared by all checkouts of this user.
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cxr-search
VENV ?= $(CACHE)/venv-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c 1-16)
RUN = PYTHONPATH=$(CURDIR) $(VENV)/bin/python

.PHONY: search test lint environment

search: environment
	$(RUN) -m search.run --space spaces/multilabel.yaml --study first --fresh --time 5m \
	    --set budget.reserve=0.4 --set data.image_size=64 --set 'space.epochs={int: [8, 16], step: 8}' \
	    --set 'baselines=[recipes/three_conv.yaml]' \
	    --set 'space.model.choice={small_cnn: {width: {int: [16, 32], step: 16}}, inception_resnet: {width: 16, residual_scale: {float: [0.05, 1.0], log: true}}, resnet18: {}, densenet121: {}}'

# The tests of single parts run side by side, on one thread each; a whole search takes all cores itself.
test: environment lint
ifdef TESTS
	$(RUN) -m pytest $(TESTS)
else
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 8 --dist worksteal --ignore tests/end_to_end
	$(RUN) -m pytest tests/end_to_end
endif

lint: environment
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

environment: $(VENV)/.complete
	@ln -sfn $(VENV) .venv

# The packages only: this checkout is found through the current folder, and others may share the environment.
# `.complete` is written last, so that an interrupted installation is never taken for a finished one.
$(VENV)/.complete:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	$(VENV)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print(*p["dependencies"], *p["optional-dependencies"]["test"], sep="\n")' > $(VENV)/requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r $(VENV)/requirements.txt
	touch $@
