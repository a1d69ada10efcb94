package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

// Where a running load listens for `app stop`: within its pod only.
const control = "127.0.0.1:9911"

// How many failures are told one by one.
const toldFailures = 20

type options struct {
	url            string
	method         string
	rate           float64
	count          int
	connections    int
	timeout        time.Duration
	newConnections bool
	headers        http.Header
}

// report is what a load prints, as one line of JSON.
type report struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// HTTP status, or gRPC code by name.
	Codes map[string]int `json:"codes"`
	// Answers by the version and the pod that gave them.
	Versions map[string]int `json:"versions"`
	Pods     map[string]int `json:"pods"`
	Failures []failure      `json:"failures"`
	Seconds  float64        `json:"seconds"`
	// Of the answers, in milliseconds: 50th, 99th percentile and the greatest.
	P50 float64 `json:"p50Ms"`
	P99 float64 `json:"p99Ms"`
	Max float64 `json:"maxMs"`

	took []time.Duration
}

type failure struct {
	// Seconds since the load began.
	At    float64 `json:"at"`
	Code  string  `json:"code,omitempty"`
	Error string  `json:"error,omitempty"`
}

// outcome is one answer, or why there was none.
type outcome struct {
	code, version, pod string
	err                error
	good               bool
}

func load(arguments []string) error {
	o := options{headers: http.Header{}}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&o.url, "url", "", "http://, h2c:// or grpc:// address")
	// Go's client asks once more by itself when a kept connection was closed under
	// a GET; under a POST it tells.
	flags.StringVar(&o.method, "method", http.MethodGet, "of HTTP requests")
	flags.Float64Var(&o.rate, "rate", 50, "requests per second")
	flags.IntVar(&o.count, "count", 1000, "requests in all; `app stop` ends it before")
	flags.IntVar(&o.connections, "connections", 8, "requests under way at most")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "of one request")
	flags.BoolVar(&o.newConnections, "new-connections", false, "a connection for each request")
	flags.Func("header", "name:value, more than once", func(text string) error {
		name, value, found := strings.Cut(text, ":")
		if !found {
			return errors.New("want name:value")
		}
		o.headers.Add(name, strings.TrimSpace(value))
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.url == "" || o.rate <= 0 || o.count <= 0 || o.connections <= 0 {
		return errors.New("--url is needed; --rate, --count and --connections are greater than 0")
	}
	ask, err := loadAsker(o)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.Background())
	defer cancel()
	told, err := listenForStop(cancel)
	if err != nil {
		return err
	}
	result := o.run(running, ask)
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	told(text)
	return nil
}

// Answers `app stop` with the report once there is one.
func listenForStop(cancel func()) (told func([]byte), err error) {
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return nil, err
	}
	finished := make(chan []byte, 1)
	var asked sync.WaitGroup
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			cancel()
			text := <-finished
			finished <- text
			_, _ = connection.Write(text)
			connection.Close()
			asked.Done()
		}
	}()
	return func(text []byte) {
		finished <- text
		asked.Wait()
		listener.Close()
	}, nil
}

// stop ends the load that runs in this pod and prints its report.
func stop([]string) error {
	connection, err := net.DialTimeout("tcp", control, 5*time.Second)
	if err != nil {
		return fmt.Errorf("no load runs here: %w", err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = io.Copy(os.Stdout, connection)
	return err
}

func (o options) run(running context.Context, ask func(context.Context) outcome) *report {
	result := &report{Codes: map[string]int{}, Versions: map[string]int{}, Pods: map[string]int{}, Failures: []failure{}}
	began := time.Now()
	due := make(chan struct{})
	var mutex sync.Mutex
	var workers sync.WaitGroup
	for range o.connections {
		workers.Go(func() {
			for range due {
				bounded, cancel := context.WithTimeout(context.Background(), o.timeout)
				sent := time.Now()
				said := ask(bounded)
				took := time.Since(sent)
				cancel()
				mutex.Lock()
				result.add(said, took, sent.Sub(began))
				mutex.Unlock()
			}
		})
	}
	// By the clock, not by answers: a slow server gets no less.
	ticks := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
	defer ticks.Stop()
sending:
	for range o.count {
		select {
		case <-running.Done():
			break sending
		case <-ticks.C:
		}
		select {
		case <-running.Done():
			break sending
		case due <- struct{}{}:
		}
	}
	close(due)
	workers.Wait()
	result.Seconds = time.Since(began).Seconds()
	result.summarize()
	return result
}

func (r *report) add(said outcome, took, at time.Duration) {
	r.Sent++
	if said.code != "" {
		r.Codes[said.code]++
	}
	if said.good {
		r.OK++
		r.Versions[said.version]++
		r.Pods[said.pod]++
		r.took = append(r.took, took)
		return
	}
	r.Failed++
	if len(r.Failures) < toldFailures {
		told := failure{At: at.Seconds(), Code: said.code}
		if said.err != nil {
			told.Error = said.err.Error()
		}
		r.Failures = append(r.Failures, told)
	}
}

func (r *report) summarize() {
	if len(r.took) == 0 {
		return
	}
	slices.Sort(r.took)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	last := len(r.took) - 1
	r.P50 = milliseconds(r.took[last*50/100])
	r.P99 = milliseconds(r.took[last*99/100])
	r.Max = milliseconds(r.took[last])
}

func loadAsker(o options) (func(context.Context) outcome, error) {
	if address, found := strings.CutPrefix(o.url, "grpc://"); found {
		return loadGRPC(o, strings.TrimSuffix(address, "/"))
	}
	transport := &http.Transport{MaxIdleConnsPerHost: o.connections, DisableKeepAlives: o.newConnections}
	if address, found := strings.CutPrefix(o.url, "h2c://"); found {
		o.url = "http://" + address
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	asking := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(bounded context.Context) outcome {
		request, err := http.NewRequestWithContext(bounded, o.method, o.url, nil)
		if err != nil {
			return outcome{err: err}
		}
		request.Header = o.headers.Clone()
		if host := o.headers.Get("Host"); host != "" {
			request.Host = host
		}
		answer, err := asking.Do(request)
		if err != nil {
			return outcome{err: err}
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		said := outcome{code: fmt.Sprint(answer.StatusCode), err: err}
		var told echo
		if json.Unmarshal(body, &told) == nil {
			said.version, said.pod = told.Version, told.Pod
		} else if said.err == nil && answer.StatusCode != http.StatusOK {
			said.err = errors.New(strings.TrimSpace(string(body[:min(len(body), 300)])))
		}
		said.good = err == nil && answer.StatusCode == http.StatusOK
		return said
	}, nil
}

func loadGRPC(o options, address string) (func(context.Context) outcome, error) {
	dial := func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	shared, err := dial()
	if err != nil {
		return nil, err
	}
	return func(bounded context.Context) outcome {
		connection := shared
		if o.newConnections {
			own, err := dial()
			if err != nil {
				return outcome{err: err}
			}
			defer own.Close()
			connection = own
		}
		for name, values := range o.headers {
			for _, value := range values {
				bounded = metadata.AppendToOutgoingContext(bounded, name, value)
			}
		}
		var about metadata.MD
		answer, err := pb.NewGrpcEchoClient(connection).Echo(bounded, &pb.EchoRequest{}, grpc.Header(&about))
		said := outcome{code: status.Code(err).String(), err: err, good: err == nil}
		said.pod = answer.GetAssertions().GetContext().GetPod()
		if version := about.Get("x-echo-version"); len(version) > 0 {
			said.version = version[0]
		}
		return said
	}, nil
}
