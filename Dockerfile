# An image that holds the server and little else. docs/operating.md says how to run it.
# A container needs
#
#	-addr :8000                 its loopback address cannot be reached from outside
#	-store /data/users.jsonl    on the volume; the memory store ends with the container
#	-admin NAME                 the first account, with ADMIN_PASSWORD or a generated password
#	SECRET_KEY                  in the environment, never in the image
#
# ENTRYPOINT sets the first two.

FROM golang:1.26 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -o stdauth .
RUN mkdir data

FROM scratch
# The root certificates that etcds:// needs.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/stdauth /stdauth
COPY --from=build --chown=65532:65532 /src/data /data
USER 65532:65532
VOLUME /data
EXPOSE 8000
# The image has no shell to run a check. Check /healthz and /readyz from outside.
HEALTHCHECK NONE
ENTRYPOINT ["/stdauth", "-addr", ":8000", "-store", "/data/users.jsonl"]
