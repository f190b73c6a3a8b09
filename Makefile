# `make run` and `make test` work on a fresh clone; both make .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Tests that run side by side have one thread each: threads that wait for one another spin on the cores that the others need.
BESIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist worksteal

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv and install what is pinned in constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

run: $(READY)  ## train CIFAR-10 here: python -m launcher +exp=cifar
	$(BIN)/python -m launcher +exp=cifar

test: $(READY)  ## the fast suite
	$(BESIDE) --maxprocesses 4 -m "not slow and not slurm" --durations 20

test-slow: $(READY)  ## two processes, kill -9, whole runs
	$(BESIDE) --maxprocesses 2 -m "slow and not slurm" --durations 20

test-slurm: $(READY)  ## everything on a real SLURM in a box (slurm/devcluster; root and apt-get install slurm-wlm munge)
	$(BIN)/python -m pytest -m slurm

accuracy: $(READY)  ## exp=cifar (one process and two) and exp=mnist to their ends on the real data, about five minutes on two cores
	$(BIN)/python -m pytest tests/train/test_cifar.py tests/train/test_small_exps.py -k "82_percent or mnist" --full -s

boxes: $(READY)  ## a detector on eight pictures of blood cells, by heart, and on all of BCCD, about three minutes on two cores
	$(BIN)/python -m pytest tests/train/test_detection_runs.py -k "heart or cells" --full -s

exps: $(READY)  ## every experiment for a few steps under every strategy, beside one process: ten minutes on two cores
	$(BIN)/python -m pytest tests/train/test_every_exp.py --full -s

chaos: $(READY)  ## faults by the hundred, an hour on two cores; docs/reliability.md has what they gave
	$(BIN)/python -m pytest -m chaos --full -s

chaos-long: $(READY)  ## the same with more of each, three hours
	$(BIN)/python -m pytest -m chaos --full --long -s

fuzz: $(READY)  ## 300 hostile texts in every text field, through the verbs; SEED=7 chooses them
	$(BIN)/python -m pytest -m fuzz --full -s $(if $(SEED),--seed $(SEED))

guards: $(READY)  ## each guard of docs/security.md taken out in a copy of the tree: its tests turn red; a table
	$(BIN)/python tests/guards_out.py

mutants: $(READY)  ## what keeps a split model equal to one process taken out in a copy of the tree: a test turns red; a table
	$(BIN)/python tests/split_mutants.py

gpu: $(READY)  ## what only a GPU can show, on one, in less than nine minutes: a table
	$(BIN)/python benchmarks/gpu.py

check: $(READY)  ## lint, types, shell, spelling
	$(BIN)/ruff check . slurm/devcluster/cluster
	$(BIN)/ruff format --check . slurm/devcluster/cluster
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck slurm/examples/*.sh slurm/examples/*.sbatch slurm/site.sh .ci/run
	$(BIN)/codespell

goldens: $(READY)  ## rewrite slurm/examples; review the diff
	$(BIN)/python -m pytest tests/clusters/local/test_render.py tests/clusters/slurm/test_slurm_render.py tests/clusters/slurm/test_inside_allocation.py --goldens

families: $(READY)  ## unchanged scripts of six families: to the end, stopped, preempted, at a time limit; a table (root, a SLURM in a box)
	$(BIN)/python benchmarks/families.py

bench: $(READY)  ## our loop beside a plain PyTorch loop, and the verbs' start-up times
	$(BIN)/python benchmarks/step_overhead.py
	$(BIN)/python benchmarks/startup.py

clean:  ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info

.PHONY: help setup run test test-slow test-slurm accuracy boxes exps chaos chaos-long fuzz guards mutants gpu check goldens families bench clean
