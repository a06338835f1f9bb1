# make train   installs what is missing, trains the embedded Odia default on this machine's CPU, writes runs/odia-ctc/
# make test    installs what is missing, runs the tests (faults, gpu, benchmarks: the long ones)
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

FONT_PACKAGES := @fontsource-variable/anek-odia@5.3.0 @fontsource/baloo-bhaina-2@5.2.8 @fontsource/noto-sans-oriya@5.3.0

MORE_BENGALI := hind-siliguri baloo-da-2 atma mina tiro-bangla noto-serif-bengali
MORE_THAI := sarabun prompt kanit mitr niramit mali itim sriracha trirong taviraj chakra-petch bai-jamjuree
SERIF := faces/.npm/fontsource-variable-noto-serif-oriya-5.3.0/package/files/noto-serif-oriya-oriya-wght-normal.woff2
ANEK := fonts/.npm/fontsource-variable-anek-odia-5.3.0/package/files/anek-odia-oriya-standard-normal.woff2

.PHONY: setup train test lint faults gpu benchmarks requirements fonts faces

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); make PYTHON=python3.12 …"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

train: setup
	$(BIN)/python ray_jobs/train.py configs/odia_ctc.yaml

test: lint
	$(BIN)/python -m pytest tests --ignore tests/faults --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

faults: setup
	$(BIN)/python -m pytest tests/faults

# what only a GPU can show, on a machine that has one: nine minutes
gpu: setup
	$(BIN)/python tests/gpu/check.py --minutes 9

benchmarks: setup
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/pages.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/learning.py

# requirements.txt from pyproject.toml; +cpu marks a local build that PyPI does not have
requirements: setup
	$(BIN)/pip-compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.txt pyproject.toml
	sed -i 's/+cpu$$//' requirements.txt

# fonts of configs/data/odia_words.yaml that Debian does not have, from npm into fonts/ (not committed)
fonts: setup
	mkdir -p fonts/.npm
	cd fonts/.npm && npm pack --silent $(FONT_PACKAGES)
	cd fonts/.npm && for f in *.tgz; do mkdir -p $${f%.tgz} && tar xzf $$f -C $${f%.tgz}; done
	for f in fonts/.npm/*/package/files/baloo-bhaina-2-oriya-*-normal.woff2 fonts/.npm/*/package/files/noto-sans-oriya-oriya-*-normal.woff2; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $$f fonts/$$(basename $$f -normal.woff2).ttf || exit 2; done
	for wdth in 75 100 125; do for wght in 200 400 600 800; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $(ANEK) fonts/anek-odia-$$wdth-$$wght.ttf --family "Anek Odia" --axes wght=$$wght,wdth=$$wdth || exit 2; done; done

# more fonts for configs/words/ and configs/bases/, from npm into faces/ (not committed)
faces: fonts
	mkdir -p faces/.npm
	cd faces/.npm && npm pack --silent @fontsource-variable/noto-serif-oriya@5.3.0 $(foreach name,$(MORE_BENGALI) $(MORE_THAI),@fontsource/$(name)@5.3.0)
	cd faces/.npm && for f in *.tgz; do mkdir -p $${f%.tgz} && tar xzf $$f -C $${f%.tgz}; done
	for subset in bengali thai; do for f in faces/.npm/*/package/files/*-$$subset-[3-8]00-normal.woff2; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $$f faces/$$subset/$$(basename $$f -normal.woff2).ttf || exit 2; done; done
	for wght in 400 500 600 700; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $(SERIF) faces/oriya/noto-serif-oriya-$$wght.ttf --family "Noto Serif Oriya" --axes wght=$$wght || exit 2; done
