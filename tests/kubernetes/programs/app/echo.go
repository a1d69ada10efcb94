package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

// Headers that belong to a trace, which a service hands on with what it asks.
var traceHeaders = []string{"Traceparent", "Tracestate", "Baggage"}

// echo is what an answer tells about its request. The names are those of the
// conformance suite's echo server, and ours below them.
type echo struct {
	Path      string      `json:"path"`
	Host      string      `json:"host"`
	Method    string      `json:"method"`
	Proto     string      `json:"proto"`
	Headers   http.Header `json:"headers"`
	HTTPPort  string      `json:"httpPort"`
	Namespace string      `json:"namespace"`
	Ingress   string      `json:"ingress"`
	Service   string      `json:"service"`
	Pod       string      `json:"pod"`

	Version string `json:"version"`
	// The peer's address as this process sees it.
	Peer string `json:"peer"`
	Body string `json:"body,omitempty"`
	// What the next service answered, when this one was asked to call it.
	Next       json.RawMessage `json:"next,omitempty"`
	NextStatus int             `json:"nextStatus,omitempty"`
	NextError  string          `json:"nextError,omitempty"`
}

func podName() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	// A pod's host name is its own.
	name, _ := os.Hostname()
	return name
}

func (s *servers) httpServer(port int, withTLS bool) (*http.Server, error) {
	routes := http.NewServeMux()
	routes.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "OK")
	})
	routes.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	routes.HandleFunc("/call/{next}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, port, r.PathValue("next")+"/"+r.PathValue("rest"))
	})
	routes.HandleFunc("POST /admit", admit)
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, port, "")
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: routes, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	if withTLS {
		certificate, err := s.loadCertificate()
		if err != nil {
			return nil, err
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	return server, nil
}

func (s *servers) answer(w http.ResponseWriter, r *http.Request, port int, next string) {
	if delay, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
		time.Sleep(min(delay, time.Minute))
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	said := echo{
		Path:      r.RequestURI,
		Host:      r.Host,
		Method:    r.Method,
		Proto:     r.Proto,
		Headers:   r.Header,
		HTTPPort:  strconv.Itoa(port),
		Namespace: os.Getenv("NAMESPACE"),
		Ingress:   os.Getenv("INGRESS_NAME"),
		Service:   os.Getenv("SERVICE_NAME"),
		Pod:       podName(),
		Version:   s.version,
		Peer:      r.RemoteAddr,
		Body:      string(body),
	}
	status := http.StatusOK
	if next != "" {
		status = said.call(r, "http://"+next)
	}
	for _, pair := range strings.Split(strings.Join(r.Header.Values("X-Echo-Set-Header"), ","), ",") {
		if name, value, found := strings.Cut(strings.TrimSpace(pair), ":"); found {
			w.Header().Add(name, strings.TrimSpace(value))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", " ")
	_ = encoder.Encode(said)
}

// Asks the next service, within the trace of the request.
func (e *echo) call(r *http.Request, url string) int {
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err == nil {
		for _, name := range traceHeaders {
			if value := r.Header.Values(name); len(value) > 0 {
				ask.Header[name] = value
			}
		}
		var answer *http.Response
		if answer, err = http.DefaultClient.Do(ask); err == nil {
			defer answer.Body.Close()
			body, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
			e.NextStatus = answer.StatusCode
			if json.Valid(body) {
				e.Next = body
			} else {
				e.NextError = string(body)
			}
			return answer.StatusCode
		}
	}
	e.NextError = err.Error()
	return http.StatusBadGateway
}

func (s *servers) loadCertificate() (tls.Certificate, error) {
	if s.certificate != "" {
		if _, err := os.Stat(s.certificate); err == nil {
			return tls.LoadX509KeyPair(s.certificate, s.key)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().AddDate(0, 0, 30),
		DNSNames:     []string{podName()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

type grpcEcho struct {
	pb.UnimplementedGrpcEchoServer
	version string
}

func registerEcho(server *grpc.Server, version string) {
	pb.RegisterGrpcEchoServer(server, &grpcEcho{version: version})
}

func (g *grpcEcho) Echo(ctx context.Context, request *pb.EchoRequest) (*pb.EchoResponse, error) {
	return g.answer(ctx, request)
}

func (g *grpcEcho) EchoTwo(ctx context.Context, request *pb.EchoRequest) (*pb.EchoResponse, error) {
	return g.answer(ctx, request)
}

func (g *grpcEcho) answer(ctx context.Context, request *pb.EchoRequest) (*pb.EchoResponse, error) {
	method, _ := grpc.Method(ctx)
	said := &pb.Assertions{
		FullyQualifiedMethod: method,
		Context: &pb.Context{
			Namespace:   os.Getenv("NAMESPACE"),
			Ingress:     os.Getenv("INGRESS_NAME"),
			ServiceName: os.Getenv("SERVICE_NAME"),
			Pod:         podName(),
		},
	}
	headers, _ := metadata.FromIncomingContext(ctx)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			said.Headers = append(said.Headers, &pb.Header{Key: name, Value: value})
		}
	}
	if authority := headers.Get(":authority"); len(authority) > 0 {
		said.Authority = authority[0]
	}
	about := metadata.Pairs("x-echo-version", g.version)
	if from, known := peer.FromContext(ctx); known {
		about.Set("x-echo-peer", from.Addr.String())
	}
	_ = grpc.SetHeader(ctx, about)
	return &pb.EchoResponse{Assertions: said, Request: request}, nil
}
