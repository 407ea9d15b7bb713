# Multimodal from Scratch. `make` alone lists what can be done; every target sets up what it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup doctor checkpoints runs serve test lint format bench clean site site-setup site-serve test-site progress mutants

# The first Python on this machine that the course can use; name another with PYTHON=…
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
RUN := .venv/bin/python

PRESET ?= cpu
# The full preset is about how sure one can be, so it takes several seeds.
SEED ?= $(if $(filter full,$(PRESET)),0 1 2,0)
SEEDS ?= 0 1 2
WORKERS ?= 2
PORT ?= 8000
# An empty option is left out.
OPTIONS = $(if $(PART),--part $(PART)) $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE)) $(if $(RESUME),--resume)

help: ## list what can be done
	@echo "Multimodal from Scratch"
	@echo
	@sed -n 's/^\([a-zA-Z0-9%-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | sed 's/%/N/' | \
		awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo "  Options: PRESET=smoke|cpu|full|gpu  SEED=0  PART=name  DATA=name  DEVICE=cpu|cuda  RESUME=1   (make results-N: SEEDS=\"0 1 2\")"

setup: ## make the environment .venv from the pinned requirements (every target does this by itself)
	@$(PYTHON) -S shared/course/environment.py

doctor: ## check this machine: Python, memory, disk, cores, GPU, PyTorch, Triton
	@if [ -x $(RUN) ]; then $(RUN) -m shared.course.doctor; else $(PYTHON) -m shared.course.doctor; fi

lesson-%: setup ## train lesson N, measure its claims, draw its figures
	@$(RUN) -m shared.course.run $* --preset $(PRESET) --seeds $(SEED) $(OPTIONS)

reference-%: ## run lesson N's pure-Python reference; needs nothing installed
	@$(PYTHON) -S -m $$(ls -d lessons/lesson_$$(printf '%02d' $*)_*/ | tr / . | sed 's/\.$$//').reference $(PART)

notebook-%: setup ## open lesson N's notebook
	@$(RUN) -m notebook $$(ls -d lessons/lesson_$$(printf '%02d' $*)_*)/lesson.ipynb

results-%: setup ## measure lesson N over several seeds and write its results.json, figures and tables
	@$(RUN) -m shared.course.results $* --preset $(PRESET) --seeds $(SEEDS) $(OPTIONS)

checkpoint-%: setup ## train again what lesson N keeps for later lessons, into data/checkpoints
	@$(RUN) -m shared.course.checkpoint $*

checkpoints: setup ## train all of these again, in order
	@$(RUN) -m shared.course.checkpoint --all

runs: setup ## list what has been trained: how far each run came, and how to go on with it
	@$(RUN) -m shared.course.runs

serve: setup ## show lesson 5's assistant pictures and ask it, over HTTP: PORT=8000, ASSISTANT=folder for another one
	@$(RUN) -m apps.assistant.serve $(ASSISTANT) --port $(PORT)

test: setup lint ## run every test and every notebook
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile --nbval-lax --nbval-current-env

test-%: setup ## run lesson N's tests and notebook
	@$(RUN) -m pytest -q -n $(WORKERS) --dist loadfile --nbval-lax --nbval-current-env $$(ls -d lessons/lesson_$$(printf '%02d' $*)_*)

lint: setup ## check style (ruff) and spelling (codespell, American)
	@$(RUN) -m ruff check --quiet . && $(RUN) -m ruff format --quiet --check . || \
		{ echo "style: run make format, then correct what ruff still reports"; exit 1; }
	@$(RUN) -m codespell_lib || { echo "spelling: correct it, or add a name to ignore-words-list in pyproject.toml"; exit 1; }

format: setup ## format the code and fix what ruff can fix
	@$(RUN) -m ruff check --quiet --fix . ; $(RUN) -m ruff format --quiet .

# The site has an environment of its own, so that nothing here makes lessons and tests slower.
site-setup:
	@$(PYTHON) -S shared/course/site/environment.py

site: site-setup ## build the course as a site that needs no network, into site/
	@.venv-site/bin/python -m shared.course.site.build

site-serve: site ## build it and show it in a browser: http://127.0.0.1:8000, or PORT=…
	@.venv-site/bin/python -m shared.course.site.serve --port $(PORT)

test-site: setup ## build it and look at every page in this machine's Chromium
	@$(PYTHON) -S shared/course/site/environment.py --browser
	@SITE=must $(RUN) -m pytest -q shared/course/site

start-%: setup ## open lesson N's exercises: their solutions are taken out of the code, and kept
	@$(RUN) -m shared.teaching.self_study start $*

check-%: setup ## say of lesson N's exercises which are solved, with hints
	@$(RUN) -m shared.teaching.check $*

hint-%: setup ## a hint for an exercise, as hint-1.3
	@$(RUN) -m shared.teaching.self_study hint $*

solution-%: setup ## the solution of an exercise, as solution-1.3
	@$(RUN) -m shared.teaching.self_study solution $*

progress: setup ## which lessons are done, what comes next, how many hours are left
	@$(RUN) -m shared.teaching.progress

mutants: setup ## plant every small bug in every exercise, and list those that no test notices (LESSON=1: of that one)
	@$(RUN) -m shared.teaching.mutation $(LESSON)

assign-%: setup ## write lesson N's exercises as students get them, into dist/ (OWN=1: without the earlier lessons)
	@$(RUN) -m shared.teaching.assign $* $(if $(OWN),--own)

grade-%: setup ## grade lesson N: SUBMISSION=a folder, a zip, or a folder of many
	@$(RUN) -m shared.teaching.grade $* $(if $(SUBMISSION),"$(SUBMISSION)") --workers $(WORKERS)

bench: setup ## measure the course's speed against others on this machine, into benchmarks/
	@$(RUN) -m benchmarks

bench-serving: setup ## put the service under load, with batches and without (needs wrk), into benchmarks/serving.md
	@$(RUN) -m benchmarks.serving

clean: ## remove what runs and tests have left (not the environment, not downloaded data)
	@rm -rf runs dist build site .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
