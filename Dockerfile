# The server in an image that holds nothing else. docs/operating.md says how to run it.
# A container needs
#
#	-addr :8000                 its own loopback address is not reachable from outside
#	-store /data/users.jsonl    on the volume: memory ends with the container
#	-admin NAME                 the first account; password from ADMIN_PASSWORD, or printed once
#	SECRET_KEY                  in the environment, never in the image
#
# The first two are given below.

FROM golang:1.26 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -o stdauth .
RUN mkdir data

FROM scratch
# The roots that etcds:// needs.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/stdauth /stdauth
COPY --from=build --chown=65532:65532 /src/data /data
USER 65532:65532
VOLUME /data
EXPOSE 8000
# There is no shell to run a check in: ask /healthz and /readyz from outside.
HEALTHCHECK NONE
ENTRYPOINT ["/stdauth", "-addr", ":8000", "-store", "/data/users.jsonl"]
