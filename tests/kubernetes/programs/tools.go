//go:build tools

// Package tools keeps what is built unchanged from this module's requirements in
// its list of checksums: the Gateway API's conformance suite and its echo server.
package tools

import (
	_ "sigs.k8s.io/gateway-api/conformance"
	_ "sigs.k8s.io/gateway-api/conformance/echo-basic"
)
