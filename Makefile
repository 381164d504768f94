# Each target makes what it needs by itself, in .venv and build/. Use another Python with `make PYTHON=... test`.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-core test-pythons test-main test-keras test-tflite-runtime test-river test-lowest test-sdist test-nightly coverage lint contracts types docs torture fuzz-frames fuzz-models fusions bench bench-control bench-profile bench-drift bench-throughput bench-streams bench-attacks full lock clean
SHELL := bash

# The first Python that is new enough and can make environments. It is run, since a name on PATH proves little.
PROBE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c "$(PROBE)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)
endif

# tflite-runtime ends with Python 3.11
PROBE_311 := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON_311 = $(shell for p in $(PYTHON) python3.11 python3 "$$HOME"/.pyenv/versions/3.11.*/bin/python; do \
	"$$p" -c "$(PROBE_311)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)

EXTRAS := litert,http,vision,cli,plot,telemetry
BIN := .venv/bin
STAMPS := .venv/.stamps
WHEELS := build/wheels
REQUIREMENTS := tools/requirements
PYTEST := pytest -q -n auto --dist worksteal
PIP_INSTALL := -m pip --disable-pip-version-check install -qq

# The versions that CI tested. `make LOCKED= test` takes the newest ones instead, `make lock` writes the files anew.
LOCKS := $(REQUIREMENTS)/locks
LOCKED := yes
locked = $(if $(LOCKED),-c $(LOCKS)/$(1).txt)
say = @printf '\033[1m%s\033[0m\n' "$(1)"

JOBS_HERE := $(shell nproc 2>/dev/null || echo 2)

SOURCES := $(shell find src -not -path '*/__pycache__*') pyproject.toml LICENSE $(wildcard README.md)

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMPS)/wheel  ## Watch a network move between two processes while the link degrades and the edge dies
	$(BIN)/splitiot demo

# The longest run comes last, so that its summary ends the output.
test: test-core test-pythons test-main  ## Run all tests on the built wheel: alone, on other Pythons, with extras

test-core: .venv-core/.stamp  ## Run the tests without any extra
	$(call say,Tests without any extra)
	@SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS= \
		.venv-core/bin/$(PYTEST) -rfE tests --doctest-modules --pyargs splitiot

test-pythons: $(STAMPS)/wheel  ## Run the tests without any extra on every other Python 3.12 and 3.13 found
	@$(BIN)/python tools/other_pythons.py --wheels $(WHEELS) --requirements $(REQUIREMENTS)/test.txt \
		$(if $(LOCKED),--constraints $(LOCKS)/main.txt)

test-main: $(STAMPS)/wheel $(STAMPS)/test $(STAMPS)/examples $(STAMPS)/servers  ## Run the tests with the extras (TESTS="-k wire" picks some)
	$(call say,Tests with $(EXTRAS))
	@SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=$(EXTRAS) \
		$(BIN)/$(PYTEST) tests --doctest-modules --pyargs splitiot $(TESTS)

test-keras: .venv-keras/.stamp  ## Run the tests of Keras models and interpreters beside TensorFlow (2 GB, made once)
	$(call say,Tests beside TensorFlow)
	@SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=tensorflow,litert \
		.venv-keras/bin/$(PYTEST) -rfE tests/keras tests/models/test_interpreters.py $(TESTS)

# The old runtime has no reference kernel for RFFT2D, and knows one shape before it runs; the third is for litert.
NOT_IN_TFLITE := --deselect "tests/models/test_shared_models.py::test_every_legal_cut_is_exact[odd/complex_fft-reference]" \
	--deselect tests/models/test_shared_models.py::test_shapes_that_only_an_interpreter_knows \
	--deselect tests/models/test_probe.py::test_without_an_interpreter

test-tflite-runtime:  ## Run the tests of models with tflite-runtime and numpy 1, on Python 3.11
	@if [ -z "$(PYTHON_311)" ]; then \
		echo "Skipped: there is no Python 3.11, and tflite-runtime has no wheels for later ones"; \
	else \
		$(MAKE) --no-print-directory .venv-tflite/.stamp PYTHON_311="$(PYTHON_311)" && \
		printf '\033[1m%s\033[0m\n' "Tests with tflite-runtime" && \
		SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=tflite \
			.venv-tflite/bin/$(PYTEST) -rfE tests/models $(NOT_IN_TFLITE) $(TESTS); \
	fi

test-river: .venv-river/.stamp  ## Run the tests beside River, whose drift detectors fit (250 MB, made once)
	$(call say,Tests beside River)
	@SPLITIOT_TEST_INSTALLED=1 .venv-river/bin/pytest -q -rfE tests/river $(TESTS)

# What takes numpy, each extra, and the rest of the core in hand. Old packages use what newer ones call old.
LOWEST := tests/test_package.py tests/test_cost.py tests/test_device.py tests/test_planner.py tests/test_telemetry.py \
	tests/test_vision.py tests/test_wire.py tests/adapters/test_http.py tests/cli/test_inspect.py \
	tests/cli/test_profile.py tests/models/test_execute.py tests/models/test_interpreters.py

test-lowest:  ## Run some tests with the lowest versions that pyproject.toml allows, on Python 3.11
	@if [ -z "$(PYTHON_311)" ]; then \
		echo "Skipped: there is no Python 3.11, and the lowest versions have no wheels for later ones"; \
	else \
		$(MAKE) --no-print-directory .venv-lowest/.stamp PYTHON_311="$(PYTHON_311)" && \
		printf '\033[1m%s\033[0m\n' "Tests with the lowest versions" && \
		SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=$(EXTRAS) \
			.venv-lowest/bin/$(PYTEST) -rfE -W ignore::DeprecationWarning $(LOWEST) $(TESTS); \
	fi

test-sdist: $(WHEELS)/.built .venv-core/.stamp  ## Build the sdist, the wheel from it, and run some tests out of it
	@rm -rf build/sdist
	@$(BIN)/hatchling build -t sdist -d build/sdist
	@$(BIN)/python tools/check_sdist.py build/sdist $(WHEELS)
	@cd build/sdist/unpacked/* && SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS= \
		$(CURDIR)/.venv-core/bin/pytest -q -rfE tests/test_package.py tests/test_wire.py

# What is quick and in one process: a minute, and the same without folders of models and data. Without litert among the
# promised extras long tests take a part only.
COVERED := tests/session/test_[!b]* tests/transports tests/estimators/test_[!c]* tests/policies/test_[!r]* tests/adapters/test_http.py \
	$(addprefix tests/models/test_,bundle.py execute.py foreign.py interpreters.py model.py reader.py validate.py) \
	$(addprefix tests/cli/test_,inspect.py own_input.py plan.py profile.py replay.py run.py split.py verify.py) \
	$(addprefix tests/test_,device.py edge.py escape.py functions.py html.py limits.py link_probe.py mistakes.py \
	package.py planner.py profiling.py recorder.py runner.py samples.py solver.py spool.py steps.py \
	telemetry.py topology.py trouble.py wire.py)

# It compares times, and tracing makes Python slower than numpy. Whether tests pass is for `make test` to say.
NOT_TRACED := --deselect tests/test_planner.py::test_fomo_is_decided_much_faster_than_by_the_loop

coverage: $(STAMPS)/wheel $(STAMPS)/test $(STAMPS)/coverage  ## Measure which branches quick tests take; fails below the floor (COVERED=tests: all tests)
	$(call say,Branch coverage)
	@rm -rf build/coverage && mkdir -p build/coverage
	@SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=http,vision,cli,plot,telemetry \
		SPLITIOT_TEST_MODELS= SPLITIOT_TEST_DATA= SPLITIOT_TEST_FIELD= \
		$(BIN)/$(PYTEST) --cov --cov-report= $(NOT_TRACED) $(COVERED) $(TESTS) || true
	@$(BIN)/coverage report --skip-covered

test-nightly: $(STAMPS)/wheel $(STAMPS)/test $(STAMPS)/examples $(STAMPS)/servers  ## Search with Hypothesis: other examples each time, and ten times as many
	$(call say,Searches)
	@SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_EXTRAS=$(EXTRAS) SPLITIOT_TEST_HYPOTHESIS=nightly \
		$(BIN)/$(PYTEST) -m hypothesis tests $(TESTS)

lint: $(STAMPS)/lint  ## Check the style of the code
	$(BIN)/ruff check .

contracts: $(STAMPS)/lint $(STAMPS)/wheel  ## Check the direction of imports, and find circles of modules
	PYTHONPATH=src $(BIN)/lint-imports --no-cache
	$(BIN)/python tools/measure_house.py --circles

types: $(STAMPS)/lint $(STAMPS)/wheel  ## Check the types
	$(BIN)/mypy $(wildcard src examples)
	$(BIN)/mypy examples/ball_tracking/*.py
	$(BIN)/mypy examples/vibration/*.py

docs: $(STAMPS)/docs  ## Build the documentation into build/site
	$(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

torture: $(STAMPS)/wheel  ## Simulate 2,000 runs in which everything goes wrong (SEEDS=100 for a quick look)
	$(BIN)/splitiot torture --seeds $(or $(SEEDS),2000) --first-seed $(or $(FIRST),0) --jobs $(or $(JOBS),$(JOBS_HERE))

fuzz-frames: $(STAMPS)/wheel $(STAMPS)/test  ## Read frames that were changed at random, and what the dearest ones cost (FRAMES=10000000 takes 10 minutes)
	$(BIN)/python tools/fuzz_frames.py --frames $(or $(FRAMES),200000) --seed $(or $(SEED),1)

fuzz-models: $(STAMPS)/wheel $(STAMPS)/test  ## Read models that were changed at random, and run those that are taken (5 minutes)
	$(BIN)/python tools/fuzz_models.py --byte $(or $(MUTANTS),20000) --structural 2000 --jobs $(JOBS_HERE) --run

fusions: $(STAMPS)/wheel $(STAMPS)/test  ## Try all pairs of operators for cuts that change bits, and print them (5 minutes)
	SPLITIOT_TEST_INSTALLED=1 SPLITIOT_TEST_FUSIONS=all \
		$(BIN)/pytest -q -rA tests/models/test_fusions.py tests/models/test_untold_shapes.py $(TESTS)

bench: $(STAMPS)/wheel  ## Measure, and print one table
	$(BIN)/python benchmarks/run.py

bench-control: $(STAMPS)/wheel  ## Compare policies while everything changes (15 to 20 minutes; SEEDS=2 for a quick look)
	$(BIN)/python benchmarks/control.py --seeds $(or $(SEEDS),12) --plot build/control.png
	$(BIN)/python benchmarks/decision_cost.py

bench-profile: $(STAMPS)/wheel  ## Measure how well a profile tells what every head takes (2 to 4 minutes)
	$(BIN)/python benchmarks/profile_accuracy.py

bench-drift: .venv-river/.stamp  ## Measure drift detectors, ours and River's: false alarms and delays
	.venv-river/bin/python benchmarks/detectors.py

bench-throughput: $(STAMPS)/wheel  ## Keep a stream's target while everything changes, beside CS4365's scheduler (3 to 6 minutes)
	$(BIN)/python benchmarks/throughput.py --seeds $(or $(SEEDS),6) --plot build/throughput.png

bench-streams: $(STAMPS)/wheel  ## Measure pipelined runs against the slowest resource's rate (2 to 3 minutes)
	$(BIN)/python benchmarks/streams.py

bench-attacks: $(STAMPS)/wheel  ## Attack an edge in 10 ways while an honest device works (6 minutes)
	$(BIN)/python benchmarks/attacks.py

full: test-nightly torture fuzz-frames fuzz-models fusions bench bench-control bench-profile bench-drift bench-throughput bench-streams bench-attacks  ## Everything that takes too long for each change (1 to 2 hours)

LOCK = tools/lock.py $(LOCKS)

lock: $(WHEELS)/.built  ## Write the newest versions into tools/requirements/locks, for CI to test
	@$(BIN)/python $(LOCK)/main.txt "$$(echo $(WHEELS)/*.whl)[$(EXTRAS)]" $(foreach f,build coverage docs examples lint servers test,-r $(REQUIREMENTS)/$(f).txt)
	@$(BIN)/python $(LOCK)/river.txt $(WHEELS)/*.whl $(foreach f,test river,-r $(REQUIREMENTS)/$(f).txt)
	@$(BIN)/python $(LOCK)/keras.txt "$$(echo $(WHEELS)/*.whl)[tensorflow,litert]" $(foreach f,test keras,-r $(REQUIREMENTS)/$(f).txt)
	@$(BIN)/python tools/lowest.py > build/lowest.txt
	@$(PYTHON_311) $(LOCK)/lowest.txt "$$(echo $(WHEELS)/*.whl)[$(EXTRAS)]" -r $(REQUIREMENTS)/test.txt -c build/lowest.txt
	@$(PYTHON_311) $(LOCK)/tflite.txt "$$(echo $(WHEELS)/*.whl)[tflite]" -r $(REQUIREMENTS)/test.txt

clean:  ## Remove everything that was made
	rm -rf .venv .venv-core .venv-pythons .venv-keras .venv-tflite .venv-river .venv-lowest build splitiot-demo .hypothesis .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments, each remade when what it is made from changes ---

$(STAMPS)/made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (with venv): make PYTHON=/path/to/python3.11"; exit 1; }
	$(call say,Making .venv with $(PYTHON))
	@$(PYTHON) -c "$(PROBE)" || { echo "$(PYTHON) is no Python 3.11 or newer with venv and ensurepip"; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/build: $(REQUIREMENTS)/build.txt $(LOCKS)/main.txt | $(STAMPS)/made
	@$(BIN)/python $(PIP_INSTALL) -r $< $(call locked,main)
	@touch $@

$(WHEELS)/.built: $(SOURCES) $(STAMPS)/build
	$(call say,Building the wheel)
	@rm -rf $(WHEELS)
	@$(BIN)/hatchling build -t wheel -d $(WHEELS)
	@touch $@

# Twice: the first renews our package, though its version is the same; the second brings what it needs.
$(STAMPS)/wheel: $(WHEELS)/.built $(LOCKS)/main.txt
	$(call say,Installing the wheel with $(EXTRAS))
	@$(BIN)/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@$(BIN)/python $(PIP_INSTALL) "$$(echo $(WHEELS)/*.whl)[$(EXTRAS)]" $(call locked,main)
	@touch $@

.venv-core/.stamp: $(WHEELS)/.built $(REQUIREMENTS)/test.txt $(LOCKS)/main.txt
	$(call say,Installing the wheel without extras in .venv-core)
	@test -x .venv-core/bin/python || $(PYTHON) -m venv .venv-core
	@.venv-core/bin/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@.venv-core/bin/python $(PIP_INSTALL) $(WHEELS)/*.whl -r $(REQUIREMENTS)/test.txt $(call locked,main)
	@touch $@

.venv-keras/.stamp: $(WHEELS)/.built $(REQUIREMENTS)/test.txt $(REQUIREMENTS)/keras.txt $(LOCKS)/keras.txt
	$(call say,Installing the wheel with TensorFlow in .venv-keras)
	@test -x .venv-keras/bin/python || $(PYTHON) -m venv .venv-keras
	@.venv-keras/bin/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@.venv-keras/bin/python $(PIP_INSTALL) "$$(echo $(WHEELS)/*.whl)[tensorflow,litert]" \
		-r $(REQUIREMENTS)/test.txt -r $(REQUIREMENTS)/keras.txt $(call locked,keras)
	@touch $@

.venv-tflite/.stamp: $(WHEELS)/.built $(REQUIREMENTS)/test.txt $(LOCKS)/tflite.txt
	$(call say,Installing the wheel with tflite-runtime in .venv-tflite)
	@test -x .venv-tflite/bin/python || $(PYTHON_311) -m venv .venv-tflite
	@.venv-tflite/bin/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@.venv-tflite/bin/python $(PIP_INSTALL) "$$(echo $(WHEELS)/*.whl)[tflite]" -r $(REQUIREMENTS)/test.txt \
		$(call locked,tflite)
	@touch $@

.venv-lowest/.stamp: $(WHEELS)/.built $(REQUIREMENTS)/test.txt $(LOCKS)/lowest.txt
	$(call say,Installing the wheel with the lowest versions in .venv-lowest)
	@test -x .venv-lowest/bin/python || $(PYTHON_311) -m venv .venv-lowest
	@.venv-lowest/bin/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@.venv-lowest/bin/python $(PIP_INSTALL) "$$(echo $(WHEELS)/*.whl)[$(EXTRAS)]" -r $(REQUIREMENTS)/test.txt \
		-c $(LOCKS)/lowest.txt
	@touch $@

.venv-river/.stamp: $(WHEELS)/.built $(REQUIREMENTS)/test.txt $(REQUIREMENTS)/river.txt $(LOCKS)/river.txt
	$(call say,Installing the wheel with River in .venv-river)
	@test -x .venv-river/bin/python || $(PYTHON) -m venv .venv-river
	@.venv-river/bin/python $(PIP_INSTALL) --no-deps --force-reinstall $(WHEELS)/*.whl
	@.venv-river/bin/python $(PIP_INSTALL) $(WHEELS)/*.whl -r $(REQUIREMENTS)/test.txt -r $(REQUIREMENTS)/river.txt \
		$(call locked,river)
	@touch $@

FURTHER := $(foreach f,coverage docs examples lint servers test,$(STAMPS)/$(f))
$(FURTHER): $(STAMPS)/%: $(REQUIREMENTS)/%.txt $(LOCKS)/main.txt | $(STAMPS)/made
	$(call say,Installing what $* needs)
	@$(BIN)/python $(PIP_INSTALL) -r $< $(call locked,main)
	@touch $@
