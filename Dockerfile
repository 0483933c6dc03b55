FROM python:3.13-slim AS compiled

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make gcc libc6-dev
WORKDIR /srv/mindmore
COPY Makefile ./
COPY requirements ./requirements
RUN make .venv/.compile
COPY . .
RUN make compile

FROM python:3.13-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 mindmore \
    && install --directory --owner mindmore /srv/mindmore \
    && install --directory --owner mindmore --mode 700 /var/lib/mindmore

USER 10001
WORKDIR /srv/mindmore
COPY --chown=mindmore Makefile ./
COPY --chown=mindmore requirements ./requirements
RUN make install
COPY --chown=mindmore . .
COPY --chown=mindmore --from=compiled /srv/mindmore/build ./build

# A relay hands out ports by the thousand: run it with `--network host`.
ENV MINDMORE_HOME=/var/lib/mindmore
VOLUME /var/lib/mindmore
HEALTHCHECK --start-period=60s CMD [".venv/bin/python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
CMD ["make", "run"]
