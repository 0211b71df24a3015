// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/registry/id"
)

// attachment is the name of the attachment with the records.
const attachment = "operational-monitoring-data.json.gz"

// Services answers requests to X-Road's monitoring services. Who may ask for
// what is decided before. It is safe for concurrent use.
type Services struct {
	store *Store
	cfg   ServicesConfig
	turn  chan struct{} // one query at a time: each may read all there is
}

// ServicesConfig says what the services answer.
type ServicesConfig struct {
	// Offset is how old records must be before anyone gets them, so that no
	// earlier one can come after. Default 60 s.
	Offset time.Duration
	// MaxRecords bounds the records of one answer. Default 10,000.
	MaxRecords int
	Server     id.SecurityServer
	Version    string       // of X-Road
	Machine    *Environment // nil: nothing is told about it
	Now        func() time.Time
}

// NewServices returns the services of a store.
func NewServices(s *Store, cfg ServicesConfig) *Services {
	if cfg.Offset == 0 {
		cfg.Offset = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Services{store: s, cfg: cfg, turn: make(chan struct{}, 1)}
}

// invalid is the fault for a request that its service does not take.
func invalid(err error) error {
	return fault.At(fault.Client, fault.Wrap(fault.InvalidRequest, err, "%v", err))
}

// OperationalData answers getSecurityServerOperationalData (X-Road: Operational
// Monitoring Protocol, section 2). party, if not zero, gets only records of its
// own, and never the internal address of this server.
func (s *Services) OperationalData(ctx context.Context, w http.ResponseWriter, req *message.Request, party id.Client) error {
	r, err := readDataRequest(req.Raw)
	if err != nil {
		return invalid(err)
	}
	available := s.cfg.Now().Add(-s.cfg.Offset).Unix() // not yet
	if r.from >= available {
		return invalid(fmt.Errorf("%w: records from %d are not available yet, but those before %d", ErrRequest, r.from, available))
	}
	q := Query{From: r.from, To: min(r.to, available-1), Party: party, Provider: r.provider, Fields: r.fields, Max: s.cfg.MaxRecords}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fault.Wrap(fault.ServiceUnavailable, ctx.Err(), "The security server is busy with other requests for operational data")
	}
	found, err := s.store.Find(ctx, q)
	if err != nil {
		return fault.Wrap(fault.InternalError, err, "The operational data could not be read")
	}
	next := found.NextFrom
	if next == 0 && r.to >= available {
		next = available
	}
	b := startBody("getSecurityServerOperationalDataResponse", "om", nsOperational)
	b.leaf("recordsCount", strconv.Itoa(found.Count))
	b.leaf("records", "cid:"+attachment)
	if next > 0 {
		b.leaf("nextRecordsFrom", strconv.FormatInt(next, 10))
	}
	boundary := "xroad" + rand.Text()
	w.Header().Set("Content-Type", `multipart/related; type="text/xml"; charset=UTF-8; boundary=`+boundary)
	var out bytes.Buffer
	fmt.Fprintf(&out, "--%s\r\ncontent-type:text/xml; charset=UTF-8\r\n\r\n", boundary)
	out.Write(req.SOAP.Envelope.WithBody(b.end()))
	fmt.Fprintf(&out, "\r\n--%s\r\ncontent-type:application/gzip\r\ncontent-transfer-encoding: binary\r\ncontent-id: <%s>\r\n\r\n", boundary, attachment)
	out.Write(found.JSON)
	fmt.Fprintf(&out, "\r\n--%s--\r\n", boundary)
	_, err = w.Write(out.Bytes())
	return err
}

// HealthData answers getSecurityServerHealthData (X-Road: Operational
// Monitoring Protocol, section 3).
func (s *Services) HealthData(w http.ResponseWriter, req *message.Request) error {
	provider, err := readHealthRequest(req.Raw)
	if err != nil {
		return invalid(err)
	}
	b := startBody("getSecurityServerHealthDataResponse", "om", nsOperational)
	h := s.store.health
	b.leaf("monitoringStartupTimestamp", strconv.FormatInt(h.started.UnixMilli(), 10))
	b.leaf("statisticsPeriodSeconds", strconv.Itoa(int(healthPeriod.Seconds())))
	b.open("servicesEvents")
	for _, r := range h.report(provider, s.cfg.Now()) {
		b.open("serviceEvents")
		b.service(r.service)
		b.number("lastSuccessfulRequestTimestamp", r.lastGood)
		b.number("lastUnsuccessfulRequestTimestamp", r.lastFailed)
		if r.kind != "" {
			b.leaf("serviceType", r.kind)
		}
		b.open("lastPeriodStatistics")
		b.leaf("successfulRequestCount", strconv.FormatInt(r.period.good, 10))
		b.leaf("unsuccessfulRequestCount", strconv.FormatInt(r.period.failed, 10))
		b.spread("requestMinDuration", "requestAverageDuration", "requestMaxDuration", "requestDurationStdDev", &r.period.duration)
		b.spread("requestMinSize", "requestAverageSize", "requestMaxSize", "requestSizeStdDev", &r.period.request)
		b.spread("responseMinSize", "responseAverageSize", "responseMaxSize", "responseSizeStdDev", &r.period.resp)
		b.close("lastPeriodStatistics")
		b.close("serviceEvents")
	}
	b.close("servicesEvents")
	return answer(w, req, b)
}

// Metrics answers getSecurityServerMetrics (X-Road: Monitoring Messages,
// section 2). With all, everything is told; else only what anyone may know who
// may ask at all: version, operating system and certificates.
func (s *Services) Metrics(w http.ResponseWriter, req *message.Request, all bool) error {
	names, err := readMetricsRequest(req.Raw)
	if err != nil {
		return invalid(err)
	}
	b := startBody("getSecurityServerMetricsResponse", "m", nsMetrics)
	b.open("metricSet")
	b.leaf("name", s.cfg.Server.LogString())
	b.metric(metric{name: "proxyVersion", text: s.cfg.Version, words: true})
	if s.cfg.Machine != nil {
		b.metric(s.cfg.Machine.metrics(names, all, s.cfg.Now()))
	}
	b.close("metricSet")
	return answer(w, req, b)
}

// answer sends the envelope of the request with another body.
func answer(w http.ResponseWriter, req *message.Request, b *body) error {
	w.Header().Set("Content-Type", "text/xml; charset=UTF-8")
	_, err := w.Write(req.SOAP.Envelope.WithBody(b.end()))
	return err
}

// body is XML on its way out: one element with all its namespaces.
type body struct {
	bytes.Buffer
	root, prefix string
}

func startBody(root, prefix, space string) *body {
	b := &body{root: root, prefix: prefix}
	fmt.Fprintf(b, `<%s:%s xmlns:%s=%q xmlns:id=%q>`, prefix, root, prefix, space, nsIdentifiers)
	return b
}

func (b *body) end() []byte {
	b.close(b.root)
	return b.Bytes()
}

func (b *body) open(name string)  { fmt.Fprintf(b, "<%s:%s>", b.prefix, name) }
func (b *body) close(name string) { fmt.Fprintf(b, "</%s:%s>", b.prefix, name) }

func (b *body) text(s string) {
	// What XML cannot hold becomes U+FFFD; writing to a buffer cannot fail.
	_ = xml.EscapeText(b, []byte(s))
}

func (b *body) leaf(name, value string) {
	b.open(name)
	b.text(value)
	b.close(name)
}

func (b *body) number(name string, n Number) {
	if v, ok := n.Get(); ok {
		b.leaf(name, strconv.FormatInt(v, 10))
	}
}

func (b *body) spread(least, average, most, deviation string, s *spread) {
	if s.n == 0 {
		return
	}
	b.leaf(least, strconv.FormatInt(s.min, 10))
	b.leaf(average, decimal(s.mean()))
	b.leaf(most, strconv.FormatInt(s.max, 10))
	b.leaf(deviation, decimal(s.deviation()))
}

// decimal writes a number as xs:decimal and xs:double both take it.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (b *body) service(s id.Service) {
	fmt.Fprintf(b, `<%s:service id:objectType="SERVICE">`, b.prefix)
	part := func(name, value string) {
		fmt.Fprintf(b, "<id:%s>", name)
		b.text(value)
		fmt.Fprintf(b, "</id:%s>", name)
	}
	m := s.Owner().Member()
	part("xRoadInstance", m.Instance())
	part("memberClass", m.Class())
	part("memberCode", m.Code())
	if sub := s.Owner().Subsystem(); sub != "" {
		part("subsystemCode", sub)
	}
	part("serviceCode", s.Code())
	if v, ok := s.Version(); ok {
		part("serviceVersion", v)
	}
	b.close("service")
}

// metric writes a metric of any kind.
func (b *body) metric(m metric) {
	switch {
	case m.set:
		b.open("metricSet")
		b.leaf("name", m.name)
		for _, c := range m.children {
			b.metric(c)
		}
		b.close("metricSet")
	case m.histogram != nil:
		h := m.histogram
		b.open("histogramMetric")
		b.leaf("name", m.name)
		b.leaf("updated", h.updated.UTC().Format("2006-01-02T15:04:05.000Z"))
		b.leaf("min", decimal(h.min))
		b.leaf("max", decimal(h.max))
		b.leaf("mean", decimal(h.mean))
		b.leaf("median", decimal(h.median))
		b.leaf("stddev", decimal(h.deviation))
		b.close("histogramMetric")
	default:
		kind := "numericMetric"
		if m.words || !isDecimal(m.text) {
			kind = "stringMetric"
		}
		b.open(kind)
		b.leaf("name", m.name)
		b.leaf("value", m.text)
		b.close(kind)
	}
}

// isDecimal tells whether a text is a decimal number: X-Road makes all that look
// so numeric metrics.
func isDecimal(s string) bool {
	digits, points := 0, 0
	for i, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case c == '.':
			points++
		case c == '-' && i == 0:
		default:
			return false
		}
	}
	return digits > 0 && points <= 1
}
