# syntax=docker/dockerfile:1
# LungSeg: server and worker in one container. Research use only.
#
#   docker build -t lungseg .
#   docker run --rm -p 127.0.0.1:8501:8501 -v lungseg:/data lungseg
#
# Publish it on 127.0.0.1 as above, or behind a proxy that asks for a login: LungSeg itself has none yet.
#
# A tag may name another image tomorrow. To build on one and the same, give the digest that
# `docker buildx imagetools inspect python:3.11-slim` prints:
#
#   docker build --build-arg BASE=python:3.11-slim@sha256:... -t lungseg .

ARG BASE=python:3.11-slim
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/lungseg/venv
ENV PATH=/opt/lungseg/venv/bin:$PATH
WORKDIR /opt/lungseg/app
# The libraries first: they change less often than the code.
COPY requirements.lock requirements-cuda.lock ./
RUN pip install --no-deps --require-hashes --requirement requirements.lock
# A torch that is built for GPUs can't be loaded without these; one for the processor alone needs none of them.
RUN python -c 'import torch' 2>/dev/null \
    || pip install --no-deps --require-hashes --requirement requirements-cuda.lock
# npm fetches the viewer bundle; only the bundle reaches the final stage. OpenCV's libraries: see below.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 npm \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .
# A missing bundle or demo scan leaves a server that works with less and says so.
RUN LUNGSEG_HOME=/opt/lungseg/home LUNGSEG_VIEWER=/opt/lungseg/viewer lungseg setup || true
RUN mkdir -p /opt/lungseg/home /opt/lungseg/viewer

FROM ${BASE}
# Shared libraries that opencv-python loads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 lungseg
COPY --from=build /opt/lungseg/venv /opt/lungseg/venv
COPY --from=build /opt/lungseg/app /opt/lungseg/app
COPY --from=build /opt/lungseg/viewer /opt/lungseg/viewer
COPY --from=build --chown=lungseg:lungseg /opt/lungseg/home /data
# The server must listen beyond the container's own loopback for `docker run -p` to reach it. Who gets in is decided by
# where the port is published, so the opt-in that LungSeg asks for is given here. Folders of data are to be mounted below
# /datasets: pages may name no others.
ENV PATH=/opt/lungseg/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LUNGSEG_HOME=/data \
    LUNGSEG_VIEWER=/opt/lungseg/viewer \
    LUNGSEG_HOST=0.0.0.0 \
    LUNGSEG_PORT=8501 \
    LUNGSEG_DATA=/datasets \
    LUNGSEG_ALLOW_UNAUTHENTICATED=1
USER lungseg
WORKDIR /opt/lungseg/app
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["lungseg", "serve"]
