# `make test` and `make demo` each make their own environment; nothing else needs to be installed first.
PYTHON ?= python3
PIP_OPTIONS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: test demo lint clean

test: .venv-test/ready lint
	OMP_NUM_THREADS=1 .venv-test/bin/python -m pytest -n auto --dist loadfile

lint: .venv-test/ready
	.venv-test/bin/ruff check
	.venv-test/bin/ruff format --check
	.venv-test/bin/mypy

demo: .venv-demo/ready
	rm -rf demo
	.venv-demo/bin/python scripts/draw_scene.py -o demo
	.venv-demo/bin/jotr-deploy export --stand-in -o demo/bundle
	.venv-demo/bin/jotr-deploy run demo/bundle demo/scene.jpg --keypoints demo/scene_keypoints.json --save-2d --glb -o demo/result
	.venv-demo/bin/jotr-deploy bench demo/bundle --seconds 20
	@echo "look at demo/result/scene_overlay.jpg and demo/result/scene_2d.jpg"

.venv-test/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-test
	.venv-test/bin/pip install -q $(PIP_OPTIONS) -c constraints.txt -e '.[cpu,train,dev]'
	touch $@

.venv-demo/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/pip install -q $(PIP_OPTIONS) -c constraints.txt '.[cpu,export]'
	touch $@

clean:
	rm -rf .venv-test .venv-demo demo build *.egg-info
