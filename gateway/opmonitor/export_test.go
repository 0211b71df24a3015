// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"kontor/registry/id"
)

// Flush writes what waits, as Run does at its times.
func (s *Store) Flush() { s.flush() }

// Close is what Run does when it ends.
func (s *Store) Close() error {
	s.flush()
	return s.closeFile()
}

// Sample takes a sample, as Run does at its times.
func (e *Environment) Sample() { e.sample(e.cfg.Now()) }

// FieldKinds returns the names of all fields and what they are in JSON.
func FieldKinds() map[string]string {
	m := map[string]string{}
	for _, f := range fields {
		m[f.name] = [...]string{text: "string", number: "integer", boolean: "boolean"}[f.kind]
	}
	return m
}

// Row gives tests a record as it is stored.
type Row = row

// NewRow returns a row with the given values: texts and numbers in the order of
// their places, as far as they go.
func NewRow(texts []string, numbers []Number) (w Row) {
	copy(w.texts[:], texts)
	copy(w.numbers[:], numbers)
	return w
}

const (
	TextCount   = textCount
	NumberCount = numberCount
)

// EncodeBlock returns a block of rows, without its head.
func EncodeBlock(second int64, rows ...Row) []byte {
	e := encoder{table: map[string]uint64{}}
	for i := range rows {
		e.add(&rows[i])
	}
	return e.appendBlock(nil, second)[blockHead:]
}

// DecodeBlock returns the rows of a block.
func DecodeBlock(b []byte) (rows []Row, err error) {
	err = decodeBlock(b, func(w *row) bool {
		rows = append(rows, *w)
		return true
	})
	return rows, err
}

// DataRequest is a request for operational data.
type DataRequest struct {
	From, To int64
	Provider id.Client
	Fields   []string
}

// ReadDataRequest reads one.
func ReadDataRequest(envelope []byte) (*DataRequest, error) {
	r, err := readDataRequest(envelope)
	if err != nil {
		return nil, err
	}
	return &DataRequest{r.from, r.to, r.provider, r.fields}, nil
}

var (
	ReadHealthRequest  = readHealthRequest
	ReadMetricsRequest = readMetricsRequest
)
