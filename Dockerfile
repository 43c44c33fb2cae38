# skipsr for a processor:  docker build -t skipsr .
# PyPI's build of torch holds CUDA, which is large. For a smaller image name the index of PyTorch's CPU builds:
#   docker build -t skipsr --build-arg PIP_EXTRA_INDEX_URL=... .
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=hub,gguf,web
ARG PIP_EXTRA_INDEX_URL
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/skipsr-*.whl)[${EXTRAS}]"
# whoever runs it: `docker run --user "$(id -u):$(id -g)"` writes files of one's own
RUN useradd --uid 1000 --create-home skipsr && install -d -m 1777 /data /models
ENV SKIPSR_HOME=/models HOME=/tmp
USER 1000
WORKDIR /data
ENTRYPOINT ["skipsr"]
CMD ["--help"]
