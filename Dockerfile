# docker build --build-arg VERSION=$(git describe --tags --always) -t distlimiter/ratelimit .
# docker run -p 8081:8081 -v $PWD/config/examples:/config:ro -e CONFIG_PATH=/config distlimiter/ratelimit
#
# test/container makes the same image without an engine, and tests it.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY config/schema config/schema
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ratelimit ./cmd/ratelimit

FROM scratch
# To verify Redis and control planes over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ratelimit /bin/ratelimit
USER 65532:65532
# A container's loopback is its own: listen on all of its addresses. The admin address
# stays on loopback; DEBUG_HOST opens it, for reading unless there is a token. Started
# with envoyproxy/ratelimit's variables it is open as there, for reading.
ENV GRPC_HOST=0.0.0.0 HOST=0.0.0.0
EXPOSE 8081 8080
# No ENTRYPOINT: with envoyproxy/ratelimit the command is often given as /bin/ratelimit.
CMD ["/bin/ratelimit"]
