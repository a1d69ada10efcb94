#!/usr/bin/env bash
# Clients that no one here wrote (curl, grpcurl, h2load) against a running mesh.
#
#   clients.sh READY_FILE DESCRIPTOR_DIRECTORY
#
# READY_FILE is what `weir up --ready-file` wrote. Load is bounded by count and
# goes to the addresses in that file, which are loopback.
set -euo pipefail

ready=$1
descriptors=$2
read_ready() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$ready" "$1"; }
gateway=$(read_ready gateway)
control=$(read_ready control)
token=$(read_ready token)
address=${gateway#http://}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAIL  $*" >&2
  exit 1
}
expect() { # NAME TEXT PATTERN
  grep -Eq -- "$3" <<<"$2" || fail "$1: wanted $3, got: $2"
  echo "ok    $1"
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
call() { grpcurl -plaintext -max-time 20 -protoset "$descriptors/$1.binpb" "${@:2}"; }

# curl: JSON.
email="ci-$(date +%s%N)@example.com"
account="{\"email\": \"$email\", \"password\": \"correct horse battery\"}"
curl() { command curl --silent --show-error --max-time 30 "$@"; }
access=$(curl "$gateway/v1/auth/register" -d "$account" | field accessToken)
expect "curl: own profile" "$(curl "$gateway/v1/users/me" -H "authorization: Bearer $access")" "$email"
expect "curl: products by HTTP/2" "$(curl -i --http2-prior-knowledge "$gateway/v1/products")" 'x-weir-version: v[12]'
status=$(curl -o "$scratch/error" -w '%{http_code}' "$gateway/v1/auth/login" -d '{"mail": "a"}')
expect "curl: an unknown field" "$status $(cat "$scratch/error")" '^400 .*"mail"'
expect "curl: OpenAPI" "$(curl "$control/openapi.json" | field openapi)" '^3[.]'

# grpcurl: gRPC of all kinds, by the gateway.
products=weir.products.v1.ProductsService
expect "grpcurl: unary" "$(call products -d '{"page_size": 1}' "$address" $products/ListProducts)" '"productId"'
expect "grpcurl: server streaming" "$(call products "$address" $products/ExportProducts | grep -c '"productId"')" '^[1-9]'
sku="CI-$(date +%s%N)"
product() { printf '{"product": {"name": "CI", "sku": "%s-%s", "category": "ci", "price": {"currency_code": "EUR", "amount_minor": 1}}}\n' "$sku" "$1"; }
imported=$(for i in 1 2 3; do product "$i"; done |
  call products -H "authorization: Bearer $access" -d @ "$address" $products/ImportProducts)
expect "grpcurl: client streaming" "$imported" '"created": 3'
looked=$(printf '{"product_id": "%s"}\n' 00000000-0000-4000-8000-00000000000{1,2,3} |
  call products -d @ "$address" $products/LookupProducts | grep -c '"productId"')
expect "grpcurl: bidirectional streaming" "$looked" '^3$'
refused=$(call products -d '{"product_id": "x"}' "$address" $products/GetProduct 2>&1 || true)
expect "grpcurl: an error with details" "$refused" 'InvalidArgument'
expect "grpcurl: BadRequest" "$refused" 'google.rpc.BadRequest'
login=$(call auth -d "$account" "$address" weir.auth.v1.AuthService/Login)
expect "grpcurl: login" "$login" '"tokenType": "Bearer"'
expect "grpcurl: reflection at the gateway" "$(grpcurl -plaintext -max-time 20 "$address" list)" "$products"

# grpcurl: the control API, by reflection and with health.
api=${control#http://}
reflected=$(grpcurl -plaintext -max-time 20 -H "authorization: Bearer $token" "$api" list)
expect "grpcurl: reflection of the control API" "$reflected" 'weir.control.v1.ControlService'
expect "grpcurl: health of the control API" \
  "$(grpcurl -plaintext -max-time 20 -H "authorization: Bearer $token" "$api" grpc.health.v1.Health/Check)" 'SERVING'

# h2load: nothing may fail.
load() { # NAME REQUESTS ARGUMENTS...
  local out
  out=$(timeout 120 h2load -n "$2" -T 30s "${@:3}")
  grep -Eq "^requests: $2 total, $2 started, $2 done, $2 succeeded, 0 failed, 0 errored" <<<"$out" || fail "$1: $out"
  grep -Eq "^status codes: $2 2xx" <<<"$out" || fail "$1: $out"
  echo "ok    $1: $(sed -n 's/^finished in \([^,]*\), \([^,]*\), .*/\1, \2/p' <<<"$out")"
}
load "h2load: JSON by HTTP/2" 4000 -c 8 -m 10 "$gateway/v1/products?pageSize=5"
load "h2load: JSON by HTTP/1.1" 4000 --h1 -c 8 "$gateway/v1/products?pageSize=5"
printf '\0\0\0\0\2\10\5' >"$scratch/list" # page_size: 5
load "h2load: gRPC" 4000 -c 8 -m 10 -d "$scratch/list" -H 'content-type: application/grpc' -H 'te: trailers' \
  "$gateway/$products/ListProducts"
