# seedpo on a GPU or a CPU. The tested versions of everything; torch is the build that PyPI has (CUDA on Linux x86-64).
#   docker build -t seedpo .
#   docker run --rm --gpus all -v "$PWD:/data" seedpo train my-lora.yaml --out runs/mine
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD:/data" seedpo study serve studies/mine --host 0.0.0.0
# Another build of torch, for example one without CUDA: give pip's options for it with --build-arg TORCH_OPTIONS="..."
FROM python:3.12-slim

ARG TORCH_OPTIONS=""
ARG EXTRAS=data,figures,quantised,study

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HF_HOME=/data/.huggingface

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --constraint constraints.txt setuptools \
    && pip install --constraint constraints.txt $TORCH_OPTIONS torch
COPY src ./src
RUN pip install --constraint constraints.txt --no-build-isolation ".[$EXTRAS]" \
    && seedpo list methods

# Files that a run writes belong to this user; give your own with --user "$(id -u):$(id -g)".
RUN useradd --create-home --uid 1000 seedpo
USER seedpo
WORKDIR /data
ENTRYPOINT ["seedpo"]
CMD ["--help"]
