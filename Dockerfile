# A GPU server: CUDA 13, TensorRT and jotr-deploy. Not built or run by this project's tests (no GPU, no Docker engine).
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv cmake && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/jotr
ENV PATH=/opt/jotr/bin:$PATH

WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[gpu,tensorrt]'

WORKDIR /work
ENTRYPOINT ["jotr-deploy"]
