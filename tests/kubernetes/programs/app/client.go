package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

// question is what one request of the client asks.
type question struct {
	url     string
	method  string
	headers [][2]string
	count   int
	timeout time.Duration
}

// Flags may stand after the address here, as the conformance suite writes them.
func parseQuestion(arguments []string) (question, error) {
	q := question{method: http.MethodGet, count: 1, timeout: 15 * time.Second}
	for at := 0; at < len(arguments); at++ {
		name, value, joined := strings.Cut(arguments[at], "=")
		if !strings.HasPrefix(name, "-") {
			q.url = arguments[at]
			continue
		}
		if !joined {
			at++
			if at == len(arguments) {
				return q, fmt.Errorf("%s: a value is missing", name)
			}
			value = arguments[at]
		}
		var err error
		switch strings.TrimLeft(name, "-") {
		case "method":
			q.method = value
		case "H", "header":
			key, content, _ := strings.Cut(value, ":")
			q.headers = append(q.headers, [2]string{key, strings.TrimSpace(content)})
		case "count":
			q.count, err = strconv.Atoi(value)
		case "timeout":
			q.timeout, err = time.ParseDuration(value)
		default:
			err = errors.New("not known")
		}
		if err != nil {
			return q, fmt.Errorf("%s: %w", name, err)
		}
	}
	if q.url == "" {
		return q, errors.New("usage: client URL [--method M] [-H name:value] [--count N] [--timeout 5s]")
	}
	return q, nil
}

// Prints each answer as lines of NAME=VALUE, an empty line between two answers.
func client(arguments []string) error {
	q, err := parseQuestion(arguments)
	if err != nil {
		return err
	}
	ask, done, err := asker(q)
	if err != nil {
		return err
	}
	defer done()
	var failed error
	for number := range q.count {
		lines, err := ask()
		if err != nil {
			failed = err
			lines = []string{"Error=" + err.Error()}
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "[%d] Url=%s\n", number, q.url)
		for _, line := range lines {
			fmt.Fprintf(&text, "[%d] %s\n", number, line)
		}
		fmt.Fprintln(&text)
		if _, err := text.WriteTo(os.Stdout); err != nil {
			return err
		}
	}
	return failed
}

func asker(q question) (ask func() ([]string, error), done func(), err error) {
	if address, found := strings.CutPrefix(q.url, "grpc://"); found {
		return grpcAsker(q, address)
	}
	transport := &http.Transport{
		// The test server's certificate is its own.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	if address, found := strings.CutPrefix(q.url, "h2c://"); found {
		q.url = "http://" + address
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	asking := &http.Client{
		Timeout:   q.timeout,
		Transport: transport,
		// A redirect is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func() ([]string, error) { return askHTTP(asking, q) }, transport.CloseIdleConnections, nil
}

func askHTTP(asking *http.Client, q question) ([]string, error) {
	request, err := http.NewRequest(q.method, q.url, nil)
	if err != nil {
		return nil, err
	}
	for _, header := range q.headers {
		if strings.EqualFold(header[0], "host") {
			request.Host = header[1]
		} else {
			request.Header.Add(header[0], header[1])
		}
	}
	answer, err := asking.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	lines := []string{fmt.Sprintf("StatusCode=%d", answer.StatusCode)}
	for name, values := range answer.Header {
		for _, value := range values {
			lines = append(lines, fmt.Sprintf("ResponseHeader=%s:%s", name, value))
		}
	}
	return append(lines, describe(body)...), nil
}

// Lines about what a server says it was asked.
func describe(body []byte) []string {
	var said echo
	if json.Unmarshal(body, &said) != nil {
		return []string{"Body=" + strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", " ")}
	}
	lines := []string{
		"ServiceVersion=" + said.Version,
		"ServicePort=" + said.HTTPPort,
		"Host=" + said.Host,
		"URL=" + said.Path,
		"Method=" + said.Method,
		"Proto=" + said.Proto,
		"IP=" + said.Peer,
		"Hostname=" + said.Pod,
	}
	for name, values := range said.Headers {
		for _, value := range values {
			lines = append(lines, fmt.Sprintf("RequestHeader=%s:%s", name, value))
		}
	}
	return lines
}

func grpcAsker(q question, address string) (func() ([]string, error), func(), error) {
	address, _, _ = strings.Cut(address, "/")
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	service := pb.NewGrpcEchoClient(connection)
	ask := func() ([]string, error) {
		bounded, cancel := context.WithTimeout(context.Background(), q.timeout)
		defer cancel()
		for _, header := range q.headers {
			bounded = metadata.AppendToOutgoingContext(bounded, header[0], header[1])
		}
		answer, err := service.Echo(bounded, &pb.EchoRequest{})
		if err != nil {
			// A refusal is an answer too; its number is no HTTP status.
			return []string{
				fmt.Sprintf("StatusCode=%d", status.Code(err)),
				"Error=" + err.Error(),
			}, nil
		}
		said := answer.GetAssertions()
		lines := []string{
			"StatusCode=200",
			"Host=" + said.GetAuthority(),
			"URL=" + said.GetFullyQualifiedMethod(),
			"Hostname=" + said.GetContext().GetPod(),
		}
		for _, header := range said.GetHeaders() {
			lines = append(lines, fmt.Sprintf("RequestHeader=%s:%s", header.GetKey(), header.GetValue()))
		}
		return lines, nil
	}
	return ask, func() { connection.Close() }, nil
}

// talk sends a text over TCP and prints all that comes back; without a text it
// prints the line with which the server begins.
func talk(arguments []string) error {
	if len(arguments) < 1 || len(arguments) > 2 {
		return errors.New("usage: talk HOST:PORT [TEXT]")
	}
	connection, err := net.DialTimeout("tcp", arguments[0], 10*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	if len(arguments) == 1 {
		line, err := bufio.NewReader(connection).ReadString('\n')
		fmt.Print(line)
		return err
	}
	if _, err := io.WriteString(connection, arguments[1]); err != nil {
		return err
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}
