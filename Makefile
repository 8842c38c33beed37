# `make run` and `make test` set up .venv from nothing; python3 with venv and pip is all they assume.
# MNIST_MIRROR, a folder or URL with MNIST's four .gz files, is passed on where it is set.
PYTHON ?= python3
ARGS ?=
export MNIST_MIRROR

.PHONY: run test bench clean

run: .venv/ready
	.venv/bin/python -m mnist_utils run $(if $(MNIST_MIRROR),--mirror "$(MNIST_MIRROR)") $(ARGS)

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m pytest $(ARGS)

bench: .venv/ready
	.venv/bin/python -m mnist_utils bench $(if $(MNIST_MIRROR),--mirror "$(MNIST_MIRROR)") $(ARGS)

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
