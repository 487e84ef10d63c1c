# `make check` and `make test` share an environment, `make demo` has its own; nothing else needs to be installed first.
PYTHON ?= python3
PIP_OPTIONS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: check test demo lint clean

PYTEST = OMP_NUM_THREADS=1 .venv-test/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

lint: .venv-test/ready
	.venv-test/bin/ruff check
	.venv-test/bin/ruff format --check
	.venv-test/bin/mypy

demo: .venv-demo/ready
	rm -rf demo
	.venv-demo/bin/python examples/04_against_the_truth.py starter -o demo
	.venv-demo/bin/jotr-deploy run starter demo/picture.jpg --people detector --save-2d --glb -o demo/result
	.venv-demo/bin/jotr-deploy bench starter --seconds 10
	@echo "look at demo/compared.jpg (the picture, what was found, the truth) and demo/result/picture_overlay.jpg"

.venv-test/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-test
	.venv-test/bin/pip install -q $(PIP_OPTIONS) -c constraints.txt -e '.[cpu,openvino,train,viewer,serve,dev]'
	touch $@

.venv-demo/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/pip install -q $(PIP_OPTIONS) -c constraints.txt '.[cpu]'
	touch $@

clean:
	rm -rf .venv-test .venv-demo demo build dist *.egg-info
