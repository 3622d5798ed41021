# syntax=docker/dockerfile:1
# One image for head, workers and submitters; torch's wheels bring CUDA's libraries, the node brings the driver.
#   docker build -t REGISTRY/flowcache:0.2.0 .     or, without a daemon, tools/build-image REGISTRY/flowcache:0.2.0
# Pin the base by digest where you build (docker buildx imagetools inspect python:3.11-slim-bookworm).
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flowcache flowcache
# constraints.txt fixes every version, those of dependencies too. --build-arg EXTRAS=gcs (or azure) for gs:// (az://).
ARG EXTRAS=
RUN /opt/venv/bin/pip install --no-compile -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && /opt/venv/bin/pip uninstall --quiet --yes pip
# Compiled modules that name no time: valid in an image whose times are set, where nothing can compile again, and the same
# in each build. Some of torch's files are for newer Pythons, hence `true`.
RUN PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -fqq --invalidation-mode unchecked-hash /opt/venv || true

FROM python:3.11-slim-bookworm
# procps and rsync: ray's own commands for clusters of plain machines. Docker's Python comes without compiled modules. What
# differs from one build to the next (logs, caches) goes.
ARG SOURCE_DATE_EPOCH
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps rsync \
    && useradd --uid 1000 --user-group --create-home --shell /bin/bash ray \
    && { python -m compileall -qq --invalidation-mode unchecked-hash \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')" || true; } \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*/* /var/lib/dpkg/*-old /etc/*-
COPY --from=build /opt/venv /opt/venv
COPY manifests /opt/flowcache/manifests
COPY jobs /opt/flowcache/jobs
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/ray
CMD ["flowcache", "--help"]
