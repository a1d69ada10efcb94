// Command app is the application of the cluster tests, in one program: a server
// that says what it was asked, a client that shows the answer, and a load that
// counts what failed.
//
//	app serve --port 8080 --grpc 7070 --tcp 9090
//	app load --url http://echo:8080/ --rate 50 --count 1000
//	app stop
//	app read FILE
//	app talk echo:9090 hello
//	client http://echo/ --method GET -H name:value --count 10
//
// Under the name `client` it stands in for the client in the image echo-advanced
// of the Gateway API's conformance suite, `server` likewise for its server.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	name, arguments := filepath.Base(os.Args[0]), os.Args[1:]
	if name == "app" && len(arguments) > 0 {
		name, arguments = arguments[0], arguments[1:]
	}
	commands := map[string]func([]string) error{
		"serve":  serve,
		"server": serve,
		"client": client,
		"load":   load,
		"stop":   stop,
		"read":   read,
		"talk":   talk,
	}
	command, known := commands[name]
	if !known {
		fmt.Fprintln(os.Stderr, "usage: app serve|client|load|stop|read|talk ...")
		os.Exit(2)
	}
	if err := command(arguments); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// read prints files: the image holds no other program that could.
func read(files []string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	}
	return nil
}
