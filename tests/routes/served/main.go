// The misbehaving upstream on Go's net/http: plays the script of the model asked for.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

type script struct {
	Status      int      `json:"status"`
	ContentType string   `json:"content_type"`
	Length      *int     `json:"length"`
	Writes      [][]byte `json:"writes"`
	PauseMs     int      `json:"pause_ms"`
	End         string   `json:"end"`
}

type noted struct {
	Path          string          `json:"path"`
	Model         string          `json:"model"`
	Bytes         int             `json:"bytes"`
	Stream        *bool           `json:"stream"`
	StreamOptions json.RawMessage `json:"stream_options,omitempty"`
}

var (
	scripts map[string]script
	journal *os.File
	writing sync.Mutex
)

func gone(request *http.Request) {
	select {
	case <-request.Context().Done():
	case <-time.After(10 * time.Second):
	}
}

func leave(response http.ResponseWriter, reset bool) {
	connection, _, err := response.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	if reset {
		connection.(*net.TCPConn).SetLinger(0)
	}
	connection.Close()
}

func play(response http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		io.WriteString(response, "ok")
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	asked := noted{}
	if err := json.Unmarshal(body, &asked); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	asked.Path, asked.Bytes = request.URL.Path, len(body)
	line, _ := json.Marshal(asked)
	writing.Lock()
	journal.Write(append(line, '\n'))
	writing.Unlock()
	said := scripts[asked.Model]
	if said.End == "silent" {
		gone(request)
		return
	}
	response.Header().Set("Content-Type", said.ContentType)
	if said.Length != nil {
		response.Header().Set("Content-Length", strconv.Itoa(*said.Length))
	}
	response.WriteHeader(said.Status)
	for _, piece := range said.Writes {
		response.Write(piece)
		response.(http.Flusher).Flush()
		time.Sleep(time.Duration(said.PauseMs) * time.Millisecond)
	}
	switch said.End {
	case "wait":
		gone(request)
	case "fin":
		leave(response, false)
	case "reset":
		leave(response, true)
	}
}

func main() {
	data, err := os.ReadFile(os.Getenv("ROUTES_SCRIPTS"))
	if err != nil {
		log.Fatal(err)
	}
	if err := json.Unmarshal(data, &scripts); err != nil {
		log.Fatal(err)
	}
	if journal, err = os.OpenFile(os.Getenv("ROUTES_JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		log.Fatal(err)
	}
	address := net.JoinHostPort(os.Getenv("ROUTES_HOST"), os.Getenv("ROUTES_PORT"))
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(play)))
}
