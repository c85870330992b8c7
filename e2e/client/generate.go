// Package client is a client of the API, generated from openapi.json.
package client

//go:generate go tool oapi-codegen -config config.yaml -o client.gen.go ../../web/openapi.json
