// Reads the file named by its argument in each way that Go's library has, and prints what came: sizes and digests.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	readers  = 200
	patience = 30 * time.Second
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(how string, content []byte) {
	fmt.Printf("%s: %d bytes, %x\n", how, len(content), sha256.Sum256(content))
}

func opened(path string) *os.File {
	file, err := os.Open(path)
	check(err)
	return file
}

func all(from io.Reader) []byte {
	content, err := io.ReadAll(from)
	check(err)
	return content
}

// The runtime may wait for such a file with epoll.
func byLines(path string) {
	file := opened(path)
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(file)
	count := 0
	for lines.Scan() {
		count++
	}
	check(lines.Err())
	fmt.Println("lines:", count)
}

// copy_file_range(2).
func toFile(path string) {
	out, err := os.CreateTemp("", "go-reader-")
	check(err)
	defer os.Remove(out.Name())
	from := opened(path)
	defer from.Close()
	_, err = io.Copy(out, from)
	check(err)
	content, err := os.ReadFile(out.Name())
	check(err)
	show("to a file", content)
}

// splice(2).
func toPipe(path string) {
	out, in, err := os.Pipe()
	check(err)
	go func() {
		_, err := io.Copy(in, opened(path))
		check(err)
		in.Close()
	}()
	show("to a pipe", all(out))
}

// sendfile(2).
func toSocket(path, network, address string) {
	listener, err := net.Listen(network, address)
	check(err)
	defer listener.Close()
	go func() {
		connection, err := listener.Accept()
		check(err)
		_, err = io.Copy(connection, opened(path))
		check(err)
		connection.Close()
	}()
	connection, err := net.Dial(network, listener.Addr().String())
	check(err)
	show("to a socket, "+network, all(connection))
}

func overHTTP(path string) {
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(path))))
	defer server.Close()
	for _, part := range []string{"", "bytes=2-4"} {
		request, err := http.NewRequest(http.MethodGet, server.URL+"/"+filepath.Base(path), nil)
		check(err)
		if part != "" {
			request.Header.Set("Range", part)
		}
		response, err := http.DefaultClient.Do(request)
		check(err)
		show(fmt.Sprintf("over HTTP, %s %d", part, response.StatusCode), all(response.Body))
	}
}

func atOnce(path string) {
	var waiting sync.WaitGroup
	contents := make([][]byte, readers)
	for i := range contents {
		waiting.Add(1)
		go func(i int) {
			defer waiting.Done()
			content, err := os.ReadFile(path)
			check(err)
			contents[i] = content
		}(i)
	}
	waiting.Wait()
	different := 0
	for _, content := range contents {
		if string(content) != string(contents[0]) {
			different++
		}
	}
	fmt.Println("at once:", readers, "different:", different)
}

func listed(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	check(err)
	for _, entry := range entries {
		info, err := entry.Info()
		check(err)
		if entry.Name() == filepath.Base(path) {
			fmt.Println("in the folder:", info.Mode(), info.Size())
		}
	}
}

func main() {
	path := os.Args[1]
	content, err := os.ReadFile(path)
	check(err)
	show("ReadFile", content)
	byLines(path)
	toFile(path)
	toPipe(path)
	toSocket(path, "tcp", "127.0.0.1:0")
	toSocket(path, "unix", fmt.Sprintf("@go-reader-%d", os.Getpid()))
	overHTTP(path)
	atOnce(path)
	listed(path)
}
