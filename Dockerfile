# An image that holds the server and little else. docs/operating.md says how to run it.
# A container needs -admin NAME for the first account, with ADMIN_PASSWORD or a generated
# password, and SECRET_KEY in the environment or a file, never in the image.

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
# The loopback address of a container cannot be reached from outside, and the memory store
# ends with it. Change these by variables, so that the check of the health follows them.
ENV STDAUTH_ADDR=:8000 STDAUTH_STORE=/data/users.jsonl
HEALTHCHECK --start-period=60s CMD ["/stdauth", "-check"]
ENTRYPOINT ["/stdauth"]
