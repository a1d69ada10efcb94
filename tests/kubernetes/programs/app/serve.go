package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

// What a port of the server speaks is fixed by the flag that names it.
type ports []int

func (p *ports) String() string { return fmt.Sprint([]int(*p)) }

func (p *ports) Set(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	*p = append(*p, int(port))
	return nil
}

type servers struct {
	http, tls, grpc, tcp, greet ports
	certificate, key            string
	version                     string
	// How long new connections are still accepted after SIGTERM: until then
	// everyone has learnt that this instance goes.
	drain time.Duration
}

func (s *servers) parse(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.Var(&s.http, "port", "HTTP/1.1 and HTTP/2 without TLS; more than once")
	flags.Var(&s.tls, "tls", "of these ports, those with TLS")
	flags.Var(&s.grpc, "grpc", "gRPC")
	flags.Var(&s.tcp, "tcp", "sends back the bytes it gets")
	flags.Var(&s.greet, "greet", "speaks first: a line of greeting, then sends back lines")
	flags.StringVar(&s.certificate, "crt", "", "PEM file; self-signed when it is not there")
	flags.StringVar(&s.key, "key", "", "PEM file")
	flags.StringVar(&s.version, "version", os.Getenv("VERSION"), "told in answers")
	flags.DurationVar(&s.drain, "drain", 2*time.Second, "from SIGTERM to refusing connections")
	return flags.Parse(arguments)
}

func serve(arguments []string) error {
	var s servers
	if err := s.parse(arguments); err != nil {
		return err
	}
	ending, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	failed := make(chan error, 1)
	var stops []func()
	start := func(port int, serve func(net.Listener) error, stop func()) error {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		fmt.Printf("listening on %d\n", port)
		stops = append(stops, stop)
		go func() {
			err := serve(listener)
			if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("port %d: %w", port, err)
			}
		}()
		return nil
	}
	if err := s.startAll(start); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ending.Done():
	}
	time.Sleep(s.drain)
	var all sync.WaitGroup
	for _, stop := range stops {
		all.Go(stop)
	}
	all.Wait()
	return nil
}

func (s *servers) startAll(start func(int, func(net.Listener) error, func()) error) error {
	withTLS := map[int]bool{}
	for _, port := range s.tls {
		withTLS[port] = true
	}
	for _, port := range s.http {
		server, err := s.httpServer(port, withTLS[port])
		if err != nil {
			return err
		}
		serve := server.Serve
		if withTLS[port] {
			serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		}
		stop := func() {
			bounded, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			_ = server.Shutdown(bounded)
		}
		if err := start(port, serve, stop); err != nil {
			return err
		}
	}
	for _, port := range s.grpc {
		server := grpc.NewServer()
		registerEcho(server, s.version)
		if err := start(port, server.Serve, server.GracefulStop); err != nil {
			return err
		}
	}
	for _, port := range s.tcp {
		if err := start(port, eachConnection(sendBack), func() {}); err != nil {
			return err
		}
	}
	for _, port := range s.greet {
		if err := start(port, eachConnection(greet), func() {}); err != nil {
			return err
		}
	}
	return nil
}

func eachConnection(handle func(net.Conn)) func(net.Listener) error {
	return func(listener net.Listener) error {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return err
			}
			go handle(connection)
		}
	}
}

func sendBack(connection net.Conn) {
	defer connection.Close()
	_, _ = io.Copy(connection, connection)
}

// The first bytes go from server to client, as with MySQL or SMTP.
func greet(connection net.Conn) {
	defer connection.Close()
	hostname, _ := os.Hostname()
	if _, err := fmt.Fprintf(connection, "220 %s\r\n", hostname); err != nil {
		return
	}
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		if _, err := fmt.Fprintf(connection, "250 %s\r\n", lines.Text()); err != nil {
			return
		}
	}
}
