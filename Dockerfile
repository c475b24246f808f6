# reelbank and all it needs, for a CPU; docs/how-to/install.md says how it is built and run, with a GPU too.
FROM python:3.11-slim

# Index of torch's builds for a CPU, as pytorch.org names it. Without it comes PyPI's build, with several GB of CUDA.
ARG TORCH_INDEX=

WORKDIR /opt/reelbank
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch torchvision
COPY . ./
RUN pip install --no-cache-dir -c constraints.txt .

# For `--user` with any number: a home and a folder for weights that everyone may write. Mount one to keep the weights.
RUN mkdir -m 1777 /weights
ENV HOME=/tmp REELBANK_WEIGHTS_DIR=/weights
WORKDIR /work
ENTRYPOINT ["reelbank"]
CMD ["--help"]
