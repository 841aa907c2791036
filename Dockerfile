# splitsem in a container: docker build --build-arg ACCELERATOR=cuda -t splitsem . && docker run --rm splitsem
#
# ACCELERATOR=cpu|cuda|rocm  what torch must be built for. The package index's own torch for Linux is the CUDA build, and
#                            runs without a GPU too; for ROCm, or a small image without any GPU's libraries, also give
# PIP_EXTRA_INDEX_URL=URL    the index of torch's wheels for that accelerator (pytorch.org lists them).
# BASE=IMAGE                 any Debian-like image with Python 3.11 or newer; CUDA's and ROCm's libraries come with torch,
#                            the host needs only the driver (NVIDIA: and its container toolkit).
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends git make openssl \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 splitsem
WORKDIR /home/splitsem/app

# The packages before the sources: a change of the code installs nothing again, but of what is compiled as it is installed.
ARG PIP_EXTRA_INDEX_URL=
ARG EXTRAS=dev,postgres
COPY Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY splitsem/__init__.py splitsem/
COPY device device
RUN make setup EXTRAS=${EXTRAS}
RUN make data && rm -rf /var/lib/apt/lists/*

COPY . .
RUN mkdir -p .cache outputs multirun certs mlflow && chown splitsem:splitsem . .cache outputs multirun certs mlflow
ENV PATH=/home/splitsem/app/.venv/bin:$PATH \
    MLFLOW_DISABLE_TELEMETRY=true \
    FLWR_TELEMETRY_ENABLED=0 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG ACCELERATOR=cuda
RUN scripts/check-accelerator ${ACCELERATOR}

USER splitsem
CMD ["python", "run.py", "--help"]
