# Multimodal from Scratch. `make` alone lists the targets; every target sets up what it needs, if anything.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup doctor checkpoint-judge checkpoints report runs serve progress mutants new-lesson format lint test bench bench-serving \
	site site-setup site-serve test-site clean

# The first Python on this machine that the course supports; name another with PYTHON=…
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
RUN := .venv/bin/python
PYTEST = $(RUN) -m pytest -q -n $(call quoted,$(value WORKERS)) --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env

PRESET ?= cpu
# The full preset measures the spread over seeds, so it takes several.
SEED ?= $(if $(filter full,$(PRESET)),0 1 2,0)
SEEDS ?= 0 1 2
WORKERS ?= 2
PORT ?= 8000

# A text as one word for the shell, whatever signs are in it.
quoted = '$(subst ','\'',$(1))'
# The value of an option as a word, and --name=value. An empty option is left out; $(value …) leaves a dollar sign in it alone.
argument = $(if $(value $(1)),$(call quoted,$(value $(1))))
option = $(if $(value $(1)),--$(2)=$(call quoted,$(value $(1))))
# A switch that is on: RESUME=1, but not RESUME=0.
switch = $(if $(filter-out 0 no false off,$($(1))),--$(2))
OPTIONS = --preset=$(call quoted,$(value PRESET)) $(call option,PART,part) $(call option,DATA,data) \
	$(call option,DEVICE,device) $(call switch,RESUME,resume)
# The first Python, the number in a target's name, and the folder of the lesson with this number.
BARE_RUN = $(call quoted,$(PYTHON)) -S
NUMBER = $(call quoted,$*)
LESSON_FOLDER = folder=$$($(BARE_RUN) -m shared.course.lesson $(NUMBER))

help: ## list all targets
	@echo "Multimodal from Scratch"
	@awk '/^##@ /{printf "\n%s\n", substr($$0, 5)} \
		/^[a-zA-Z0-9%-]+:.*## /{name = $$1; sub(/:$$/, "", name); sub("%", "N", name); sub(/.*## /, ""); \
		printf "  make %-16s %s\n", name, $$0}' Makefile
	@echo
	@echo "Options of make lesson-N: PRESET=smoke|cpu|full|gpu  SEED=0  PART=name  DATA=name  DEVICE=cpu|cuda  RESUME=1"
	@echo "Options of make results-N: the same, and SEEDS=\"0 1 2\""

##@ For learners

setup: ## create the environment .venv from the pinned packages (every target does this when needed)
	@$(BARE_RUN) -m shared.course.environment

doctor: ## check this machine: Python, memory, disk, cores, GPU, PyTorch, Triton
	@if [ -x $(RUN) ]; then $(RUN) -m shared.course.doctor; else $(BARE_RUN) -m shared.course.doctor; fi

lesson-%: setup ## train lesson N, measure its claims, draw its figures
	@$(RUN) -m shared.course.run $(NUMBER) --seeds=$(call quoted,$(SEED)) $(OPTIONS)

reference-%: ## run lesson N's pure-Python reference; needs no installation
	@$(LESSON_FOLDER) && $(BARE_RUN) -m "$$(echo "$$folder" | tr / .).reference" $(call argument,PART)

notebook-%: setup ## open lesson N's notebook
	@$(LESSON_FOLDER) && $(RUN) -m notebook "$$folder/lesson.ipynb"

runs: setup ## list runs, how far each came, and the command that continues it
	@$(RUN) -m shared.course.runs

start-%: setup ## open lesson N's exercises: take their solutions out of the code, and keep them
	@$(RUN) -m shared.teaching.self_study start $(NUMBER)

check-%: setup ## check which exercises of lesson N are solved, with hints
	@$(RUN) -m shared.teaching.check $(NUMBER)

hint-%: setup ## print a hint for an exercise, as hint-1.3
	@$(RUN) -m shared.teaching.self_study hint $(NUMBER)

solution-%: setup ## print the solution of an exercise, as solution-1.3
	@$(RUN) -m shared.teaching.self_study solution $(NUMBER)

progress: setup ## list which lessons are done, what comes next, and the hours left
	@$(RUN) -m shared.teaching.progress

serve: setup ## serve lesson 5's assistant over HTTP (PORT=8000, ASSISTANT=folder for another model)
	@$(RUN) -m apps.assistant serve $(call argument,ASSISTANT) --port=$(call quoted,$(value PORT))

site: site-setup ## build the course as web pages that need no network, into site/
	@.venv-site/bin/python -m shared.course.site.build

site-serve: site ## build the pages and serve them at http://127.0.0.1:8000 (PORT=…)
	@.venv-site/bin/python -m shared.course.site.serve --port=$(call quoted,$(value PORT))

##@ For instructors

assign-%: setup ## write lesson N's exercises as students get them, into dist/ (OWN=1: without earlier lessons; FORMAT=nbgrader)
	@$(RUN) -m shared.teaching.assign $(NUMBER) $(call switch,OWN,own) $(call option,FORMAT,format)

grade-%: setup ## grade lesson N: SUBMISSION=a folder, a zip, or a folder of many
	@$(RUN) -m shared.teaching.grade $(NUMBER) $(call argument,SUBMISSION) --workers=$(call quoted,$(value WORKERS))

mutants: setup ## plant small bugs in every exercise and list those that no test catches (LESSON=1: of one lesson)
	@$(RUN) -m shared.teaching.mutation $(call argument,LESSON)

##@ For developers

test: setup lint ## run every test and every notebook
	@$(PYTEST)

test-%: setup ## run lesson N's tests and notebook
	@$(LESSON_FOLDER) && $(PYTEST) "$$folder"

test-site: setup ## build the pages and check them, and the service's page, in this machine's Chromium
	@$(BARE_RUN) -m shared.course.site.environment --browser
	@SITE=must $(RUN) -m pytest -q shared/course/site shared/serving/tests/test_browser.py

lint: setup ## check style (ruff), spelling (codespell, American) and types (mypy)
	@$(RUN) -m ruff check --quiet . && $(RUN) -m ruff format --quiet --check . || \
		{ echo "style: run make format, then correct what ruff still reports"; exit 1; }
	@$(RUN) -m codespell_lib || { echo "spelling: correct it, or add a name to ignore-words-list in pyproject.toml"; exit 1; }
	@$(RUN) -m mypy --no-error-summary || { echo "types: correct them"; exit 1; }

format: setup ## format the code and fix what ruff can fix
	@$(RUN) -m ruff check --quiet --fix . ; $(RUN) -m ruff format --quiet .

new-lesson: setup ## write the skeleton of a lesson, with passing tests: N=6 NAME=any_resolution
	@$(RUN) -m shared.course.new_lesson.generate $(call quoted,$(value N)) $(call quoted,$(value NAME))

report: setup ## write docs/RESULTS.md: every claim of the course with its verdict
	@$(RUN) -m shared.course.results --readme

results-%: setup ## measure lesson N over several seeds and write its results.json, figures and tables
	@$(RUN) -m shared.course.results $(NUMBER) --seeds=$(call quoted,$(value SEEDS)) $(OPTIONS)

time-%: setup ## measure how long make lesson-N takes for one seed on this idle machine, into its results.json
	@$(RUN) -m shared.course.command_time $(NUMBER)

checkpoint-%: setup ## train the checkpoint that lesson N keeps for later lessons, into data/checkpoints
	@$(RUN) -m shared.course.checkpoint $(NUMBER)

checkpoint-judge: setup ## train the judge that scores generated images, into data/checkpoints
	@$(RUN) -m shared.course.checkpoint judge

checkpoints: setup ## train all checkpoints, parents first
	@$(RUN) -m shared.course.checkpoint --all

bench: setup ## compare the course's speed with other implementations on this machine, into benchmarks/
	@$(RUN) -m benchmarks

bench-serving: setup ## load-test the service with and without batching (needs wrk), into benchmarks/serving.md
	@$(RUN) -m benchmarks.serving

clean: ## remove runs, built pages, bundles and caches (not the environment, not downloaded data)
	@rm -rf runs dist build site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# The site has its own environment, so that lessons and tests do not install its packages.
site-setup:
	@$(BARE_RUN) -m shared.course.site.environment
