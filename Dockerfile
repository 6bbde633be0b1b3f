# rlx for NVIDIA GPUs: docker build -t rlx . && docker run --rm --gpus all -v "$PWD":/work rlx train --algo dgpo
# The wheels of torch contain the CUDA libraries; the host needs the driver and the NVIDIA container toolkit.
FROM python:3.12-slim

# triton compiles kernels while a run is going on.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# Extras of pyproject.toml: vLLM's rollouts and cut-cross-entropy's log-probs. EXTRAS="" leaves them out.
ARG EXTRAS="[fast,vllm]"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rlx rlx
RUN pip install --no-cache-dir ".${EXTRAS}" && rlx --help > /dev/null

# Models of the hub are cached in /work, too, so that they outlive the container.
ENV HF_HOME=/work/.cache/huggingface
WORKDIR /work
ENTRYPOINT ["rlx"]
CMD ["doctor"]
