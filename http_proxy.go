package main

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// This file finds out where a request comes from, perhaps through proxies.

// client returns the address of the client: the peer's, or if that is a trusted
// proxy, the one in X-Forwarded-For. Each proxy appends the address of its client. So
// the list is read from its end up to the first address that is not trusted; a client
// could have sent what is before it.
func (s *server) client(r *http.Request, addr netip.Addr, trusted bool) netip.Addr {
	given := r.Header.Values("X-Forwarded-For")
	if given == nil {
		return addr
	}
	if !trusted {
		s.warnOfProxy.Do(func() {
			s.log.Warn("a request has X-Forwarded-For, but no -trusted-proxy names its sender: behind a proxy, all clients share one address", "sender", addr)
		})
		return addr
	}
	for _, given := range slices.Backward(strings.Split(strings.Join(given, ","), ",")) {
		hop, err := parseHop(strings.TrimSpace(given))
		if err != nil || !s.trusted(addr) {
			break
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr
}

// parseHop parses an address. Some proxies add the port, or brackets.
func parseHop(s string) (netip.Addr, error) {
	if hop, err := netip.ParseAddrPort(s); err == nil {
		return hop.Addr(), nil
	}
	return netip.ParseAddr(strings.Trim(s, "[]"))
}

func (s *server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// peer returns the address of the other side of a connection.
func peer(remote string) netip.Addr {
	ap, _ := netip.ParseAddrPort(remote) // package net writes it
	return ap.Addr().Unmap().WithZone("")
}

// fromAfar reports whether a request may have come from another machine, through a
// proxy.
func (c *call) fromAfar() bool {
	return !isLoopback(c.Host) || c.Header.Get("X-Forwarded-For") != "" || c.Header.Get("Forwarded") != ""
}

// isLoopback reports whether only this machine can reach an address, which may have a
// port.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}
