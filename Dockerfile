# An image for cluster.yaml's `docker` field: the locked environment, and this version of the code.
#   docker build -t ACCOUNT.dkr.ecr.REGION.amazonaws.com/crossview:0.3.0 . && docker push ...
# CUDA's libraries come with torch's wheels; the driver is the machine's. No token goes in: `ray up` brings it.
FROM python:3.12-slim-bookworm

# What `ray up` works with inside a container.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl git make openssh-client procps rsync screen sudo \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --home-dir /opt/ray --shell /bin/bash ray \
    && echo "ray ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/ray

# Where cluster.yaml looks for it: its setup command then finds nothing left to do.
USER ray
WORKDIR /opt/ray/crossview
COPY --chown=ray Makefile pyproject.toml requirements.lock README.md LICENSE ./
COPY --chown=ray crossview crossview
COPY --chown=ray datasets datasets
COPY --chown=ray downstream downstream
COPY --chown=ray methods methods
COPY --chown=ray platform platform
COPY --chown=ray storage storage
COPY --chown=ray tune_spaces tune_spaces
RUN make setup && rm -rf /opt/ray/.cache
ENV PATH=/opt/ray/crossview/.venv/bin:$PATH
