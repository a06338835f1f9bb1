# docker build -t lipi:gpu .
#
# For CPUs: docker build --build-arg PLATFORM=cpu -t lipi:cpu .
# Training: docker run --rm --gpus all --shm-size 4g -v lipi:/mnt/lipi lipi:gpu
# The base is Ray's image of the very version that requirements.txt names, with Python 3.11 and the
# tools that KubeRay expects. PyTorch brings its own CUDA; a GPU machine needs NVIDIA's driver and
# container toolkit. No process runs as root.
ARG PLATFORM=gpu
FROM rayproject/ray:2.60.0-py311-${PLATFORM}
ARG PLATFORM

USER 0
RUN mkdir -p /home/ray/lipi /mnt/lipi && chown -R 1000:100 /home/ray/lipi /mnt/lipi
USER 1000:100
WORKDIR /home/ray/lipi

# Requirements first: the layer stays when only code changes.
COPY --chown=1000:100 requirements.txt ./
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN wheels=(); \
    if [ "$PLATFORM" = cpu ]; then \
      wheels=(--extra-index-url https://download.pytorch.org/whl/cpu); fi; \
    pip install --no-cache-dir "${wheels[@]}" -r requirements.txt

COPY --chown=1000:100 . .
RUN pip install --no-cache-dir --no-deps -e . && python ray_jobs/train.py --help > /dev/null

# A node without a token does not start; processes of one container make their own.
ENV RAY_AUTH_MODE=token LIPI_STORAGE=/mnt/lipi
CMD ["python", "ray_jobs/train_odia.py"]
