# This bundle on CPUs: `docker build --tag fundus .`. docs/docker.md says how to run it.
# Loader processes need shared memory, of which a container has 64 MB: docker run --shm-size 2g.
FROM python:3.11-slim

# The index of wheels without CUDA: PyPI's for x86-64 bring 5 GB of it. What they need comes from PyPI, below.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/fundus
COPY constraints.txt ./
RUN pip install --no-cache-dir --upgrade "pip>=25.1" \
 && pip install --no-cache-dir --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX" torch torchvision
COPY . ./
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[deploy,dicom]" \
 && python -m compileall -q bundle scripts

# Any user may run it: `docker run --user "$(id -u):$(id -g)"` gives the results to whoever typed it.
RUN useradd fundus && mkdir --mode=1777 /data
ENV HOME=/tmp USER=fundus GIT_PYTHON_REFRESH=quiet
USER fundus
WORKDIR /data
ENTRYPOINT ["fundus"]
CMD ["--help"]
