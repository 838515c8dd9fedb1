# docker build --build-arg VERSION=$(git describe --tags --always) -t ratelimit .
# docker run -p 8081:8081 -p 8080:8080 -p 6070:6070 -v $PWD/config/examples:/config:ro ratelimit

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /ratelimit ./cmd/ratelimit

FROM scratch
# To verify Redis over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /ratelimit /ratelimit
USER 65532:65532
# A container's loopback is its own: listen on all of its addresses.
ENV CONFIG_PATH=/config GRPC_HOST=0.0.0.0 HOST=0.0.0.0 DEBUG_HOST=0.0.0.0
EXPOSE 8081 8080 6070
ENTRYPOINT ["/ratelimit"]
