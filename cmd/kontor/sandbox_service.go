// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// sampleService is the information system behind the sandbox's gateways. It
// knows nothing of X-Road beyond the headers that tell who asks.
type sampleService struct{ srv *http.Server }

// The documents that describe its services, and where it has them.
//
//go:embed documents/residents.yaml
var residentsOpenAPI string

//go:embed documents/personQuery.wsdl
var personQueryWSDL string

const (
	residentsPath   = "/residents/openapi.yaml"
	personQueryPath = "/personQuery.wsdl"
)

// persons are the sample records, of nobody.
var persons = map[string]map[string]any{
	"38001010001": {"code": "38001010001", "name": "Maria Example", "born": "1980-01-01", "residence": "Lübeck"},
	"46002020002": {"code": "46002020002", "name": "Hans Sample", "born": "1960-02-02", "residence": "Tallinn"},
}

func newSampleService(addr string) *sampleService {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // the asker may have gone
	}
	mux.HandleFunc("GET /persons", func(w http.ResponseWriter, r *http.Request) {
		codes := []string{}
		for code := range persons {
			codes = append(codes, code)
		}
		answer(w, http.StatusOK, map[string]any{"persons": codes, "asked_by": r.Header.Get("X-Road-Client")})
	})
	mux.HandleFunc("GET /persons/{code}", func(w http.ResponseWriter, r *http.Request) {
		p, ok := persons[r.PathValue("code")]
		if !ok {
			answer(w, http.StatusNotFound, map[string]string{"error": "no such person"})
			return
		}
		answer(w, http.StatusOK, p)
	})
	// The rest serves tests and measurements: echoes and bodies of any size.
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		// Else the server throws away what it has not read of a short request
		// when the answer begins.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err)
		}
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler) // half an echo must not look whole
		}
	}
	mux.HandleFunc("POST /persons", echo)
	mux.HandleFunc("PUT /persons", echo)
	mux.HandleFunc("GET /persons/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 || n > 16<<30 {
			answer(w, http.StatusBadRequest, map[string]string{"error": "not a size"})
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.CopyN(w, zeros{}, n) // the asker may have gone
	})
	mux.HandleFunc("GET /persons/slow/{ms}", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.PathValue("ms"))
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-r.Context().Done():
		}
		answer(w, http.StatusOK, map[string]int{"slept_ms": ms})
	})
	mux.HandleFunc("GET /messages", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]any{"messages": []string{}, "asked_by": r.Header.Get("X-Road-Client")})
	})
	mux.HandleFunc("POST /messages", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		answer(w, http.StatusCreated, map[string]any{"accepted": strings.TrimSpace(string(b)), "from": r.Header.Get("X-Road-Client")})
	})
	mux.HandleFunc("GET /residents/addresses/{code}", func(w http.ResponseWriter, r *http.Request) {
		p, ok := persons[r.PathValue("code")]
		if !ok {
			answer(w, http.StatusNotFound, map[string]string{"error": "no such person"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"code": p["code"], "residence": p["residence"]})
	})
	mux.HandleFunc("PUT /residents/addresses/{code}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := persons[r.PathValue("code")]; !ok {
			answer(w, http.StatusNotFound, map[string]string{"error": "no such person"})
			return
		}
		answer(w, http.StatusAccepted, map[string]any{"report": "taken", "from": r.Header.Get("X-Road-Client")})
	})
	mux.HandleFunc("GET /residents/statistics", func(w http.ResponseWriter, _ *http.Request) {
		places := map[string]int{}
		for _, p := range persons {
			places[fmt.Sprint(p["residence"])]++
		}
		answer(w, http.StatusOK, places)
	})
	document := func(path, kind, content string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, content) // the asker may have gone
		})
	}
	document(residentsPath, "application/x-yaml", residentsOpenAPI)
	document(personQueryPath, "text/xml", personQueryWSDL)
	mux.HandleFunc("POST /personQuery", servePersonQuery)
	return &sampleService{&http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}}
}

// zeros is an endless stream of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (s *sampleService) run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.srv.ListenAndServe() }()
	select {
	case err := <-failed:
		return fmt.Errorf("sample service: %w", err)
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.srv.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}
}
