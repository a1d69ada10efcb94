// Command weir-interop is both ends of the gRPC interoperability test cases,
// made from grpc-go's own library: what Weir passes between two routers is
// judged by code that no one here wrote.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// client is what a case needs.
type client struct {
	ctx  context.Context
	conn *grpc.ClientConn
	test testgrpc.TestServiceClient
}

// cases are those of the "interop test descriptions" that need neither TLS nor
// credentials at the client: between routers, Weir brings its own.
var cases = []struct {
	name string
	run  func(client)
}{
	{"empty_unary", func(c client) { interop.DoEmptyUnaryCall(c.ctx, c.test) }},
	{"large_unary", func(c client) { interop.DoLargeUnaryCall(c.ctx, c.test) }},
	{"client_streaming", func(c client) { interop.DoClientStreaming(c.ctx, c.test) }},
	{"server_streaming", func(c client) { interop.DoServerStreaming(c.ctx, c.test) }},
	{"ping_pong", func(c client) { interop.DoPingPong(c.ctx, c.test) }},
	{"empty_stream", func(c client) { interop.DoEmptyStream(c.ctx, c.test) }},
	{"timeout_on_sleeping_server", func(c client) { interop.DoTimeoutOnSleepingServer(c.ctx, c.test) }},
	{"cancel_after_begin", func(c client) { interop.DoCancelAfterBegin(c.ctx, c.test) }},
	{"cancel_after_first_response", func(c client) { interop.DoCancelAfterFirstResponse(c.ctx, c.test) }},
	{"custom_metadata", func(c client) { interop.DoCustomMetadata(c.ctx, c.test) }},
	{"status_code_and_message", func(c client) { interop.DoStatusCodeAndMessage(c.ctx, c.test) }},
	{"special_status_message", func(c client) { interop.DoSpecialStatusMessage(c.ctx, c.test) }},
	{"unimplemented_method", func(c client) { interop.DoUnimplementedMethod(c.ctx, c.conn) }},
	{"unimplemented_service", func(c client) {
		interop.DoUnimplementedService(c.ctx, testgrpc.NewUnimplementedServiceClient(c.conn))
	}},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "weir-interop:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: weir-interop server --listen IP:PORT | client --target IP:PORT [--authority NAME] [--case NAME]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where the server listens")
	target := flags.String("target", "", "what the client connects to")
	authority := flags.String("authority", "interop", "the service that the client asks for")
	one := flags.String("case", "", "the only case to run; default: all")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch {
	case args[0] == "server":
		return serve(*listen)
	case args[0] == "client" && *one == "":
		return runAll(*target, *authority)
	case args[0] == "client":
		return runOne(*target, *authority, *one)
	}
	return fmt.Errorf("unknown verb %q; use server or client", args[0])
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Stop()
	}()
	return server.Serve(listener)
}

// runAll runs each case in a process of its own, because the library ends the
// process of a case that fails.
func runAll(target, authority string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	failed := 0
	for _, c := range cases {
		began := time.Now()
		out, err := exec.Command(self, "client", "--target", target, "--authority", authority, "--case", c.name).CombinedOutput()
		if err != nil {
			failed++
			fmt.Printf("FAIL  %s: %v\n%s", c.name, err, out)
			continue
		}
		fmt.Printf("ok    %s (%d ms)\n", c.name, time.Since(began).Milliseconds())
	}
	fmt.Printf("%d of %d cases passed\n", len(cases)-failed, len(cases))
	if failed > 0 {
		return fmt.Errorf("%d cases failed", failed)
	}
	return nil
}

func runOne(target, authority, name string) error {
	for _, c := range cases {
		if c.name != name {
			continue
		}
		conn, err := grpc.NewClient("passthrough:///"+target,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c.run(client{ctx: ctx, conn: conn, test: testgrpc.NewTestServiceClient(conn)})
		return nil
	}
	return fmt.Errorf("unknown case %q", name)
}
