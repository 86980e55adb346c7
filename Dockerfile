# One program on a base without a shell. `make image` builds it; tests/packaging runs these very steps where there is no engine.
#
# Both bases are Debian 12: the program is linked against the C library of the first and runs with that of the second. Tags are for people,
# the digests (of the multi-platform indexes) decide. To renew one: docker buildx imagetools inspect NAME:TAG

FROM golang:1.26.6-bookworm@sha256:116d58cbd88c1297624acc6e967a060012422bacf9930927e23fb719189c6f36 AS build
WORKDIR /src

COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

# librdkafka comes with the Kafka client's module, static. Schemas, migrations and the country database are embedded.
COPY . .
ARG VERSION=dev
ENV CGO_ENABLED=1
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -ldflags "-s -w -X main.version=${VERSION}" -o bin/exactly ./cmd/exactly && \
    cp "$(go list -m -f '{{.Dir}}' github.com/confluentinc/confluent-kafka-go/v2)/kafka/librdkafka_vendor/LICENSES.txt" bin/librdkafka.txt

FROM gcr.io/distroless/base-nossl-debian12:nonroot@sha256:be40c00dfabd86576d92666e87e406714d5618342de1a0c213ad232de255172e
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="exactly" \
      org.opencontainers.image.description="Clicks from a Kafka topic into Postgres and another topic, each exactly once, with proof" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/base-nossl-debian12:nonroot"

COPY --from=build /src/bin/exactly /usr/local/bin/exactly
# Whoever passes the program on passes these on: the country database and librdkafka have terms of their own.
COPY LICENSE clicks/geo/README.md clicks/geo/NRO_LICENSE /usr/share/doc/exactly/
COPY --from=build /src/bin/librdkafka.txt /usr/share/doc/exactly/librdkafka.txt

# In a container of its own the listener is for the container's network: metrics and probes come from outside.
ENV EXACTLY_HTTP_ADDR=:8000 \
    EXACTLY_LOG_FORMAT=json
EXPOSE 8000

# Nothing is written: the root file system may be read-only.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/exactly", "health"]
ENTRYPOINT ["/usr/local/bin/exactly"]
CMD ["run"]
