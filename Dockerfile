# vqtrain for NVIDIA GPUs; runs on a CPU too.
#   docker build -t vqtrain .
#   docker run --gpus all --shm-size 8g -v "$PWD:/workspace" vqtrain train experiment=demo
# Plain Python is base enough: torch wheels bring their own CUDA libraries, and the host brings the driver.

FROM python:3.12-slim AS build
WORKDIR /source
RUN pip install --no-cache-dir build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY vqtrain vqtrain
COPY configs configs
RUN python -m build --wheel --no-isolation --outdir /dist

FROM python:3.12-slim
# torch.compile builds its kernels with a C++ compiler when the run starts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 vqtrain \
    && install --directory --owner=vqtrain --group=vqtrain /workspace
COPY --from=build /dist/vqtrain-*.whl /dist/
RUN pip install --no-cache-dir /dist/vqtrain-*.whl
USER vqtrain
WORKDIR /workspace
ENTRYPOINT ["vqtrain"]
CMD ["--help"]
