// SPDX-License-Identifier: Apache-2.0

package opmonitor_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kontor/gateway/opmonitor"
	"kontor/registry/id"
)

// schema are the fields of X-Road's schema of the payload and their types
// (X-Road: Operational Monitoring Protocol, annex B), and xRequestId, which its
// servers send, too.
const schema = `
monitoringDataTs integer
securityServerInternalIp string
securityServerType string
requestInTs integer
requestOutTs integer
responseInTs integer
responseOutTs integer
clientXRoadInstance string
clientMemberClass string
clientMemberCode string
clientSubsystemCode string
serviceXRoadInstance string
serviceMemberClass string
serviceMemberCode string
serviceSubsystemCode string
serviceCode string
restMethod string
restPath string
xRoadVersion string
serviceVersion string
representedPartyClass string
representedPartyCode string
messageId string
messageUserId string
messageIssue string
messageProtocolVersion string
clientSecurityServerAddress string
serviceSecurityServerAddress string
requestMimeSize integer
requestAttachmentCount integer
responseMimeSize integer
responseAttachmentCount integer
succeeded boolean
faultCode string
faultString string
requestSize integer
responseSize integer
statusCode integer
serviceType string
xRequestId string
`

func TestFields(t *testing.T) {
	t.Parallel()
	want := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(schema)) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = kind
	}
	if got := opmonitor.FieldKinds(); !maps.Equal(got, want) || len(got) != 40 {
		t.Errorf("%d fields: %v", len(got), got)
	}
}

var start = time.Unix(1_800_000_000, 0)

func client(t testing.TB, s string) id.Client {
	t.Helper()
	c, err := id.ParseClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(t testing.TB, s string) id.Service {
	t.Helper()
	v, err := id.ParseService(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// full is a record with a value in every field.
func full(t testing.TB) opmonitor.Record {
	owner := client(t, "T/GOV/2/provider")
	versioned, err := id.NewServiceVersion(owner, "query", "v1")
	if err != nil {
		t.Fatal(err)
	}
	return opmonitor.Record{
		ServerType: opmonitor.Producer,
		RequestIn:  opmonitor.Millis(start), RequestOut: opmonitor.Num(1800000000001), ResponseIn: opmonitor.Num(1800000000002), ResponseOut: opmonitor.Num(1800000000003),
		Client: client(t, "T/GOV/1/consumer"), Service: versioned, RESTMethod: "GET", Path: "/pets/7",
		PartyClass: "COM", PartyCode: "p", MessageID: `m "1"`, UserID: "EE3", Issue: "Ä/1", ProtocolVersion: "4.0",
		ClientAddress: "ss1.example.org", ServiceAddress: "ss2.example.org",
		RequestSize: opmonitor.Num(10), RequestMIMESize: opmonitor.Num(20), RequestAttachments: opmonitor.Num(0),
		ResponseSize: opmonitor.Num(11), ResponseMIMESize: opmonitor.Num(21), ResponseAttachments: opmonitor.Num(2),
		Succeeded: true, Status: opmonitor.Num(200), FaultCode: "server.x", FaultString: "a\nb", RequestID: "r-1", ServiceType: "WSDL", Version: "7.8.1",
	}
}

const fullJSON = `{"records":[{"monitoringDataTs":1800000000,"securityServerInternalIp":"10.0.0.1","securityServerType":"Producer",` +
	`"requestInTs":1800000000000,"requestOutTs":1800000000001,"responseInTs":1800000000002,"responseOutTs":1800000000003,` +
	`"clientXRoadInstance":"T","clientMemberClass":"GOV","clientMemberCode":"1","clientSubsystemCode":"consumer",` +
	`"serviceXRoadInstance":"T","serviceMemberClass":"GOV","serviceMemberCode":"2","serviceSubsystemCode":"provider","serviceCode":"query",` +
	`"restMethod":"GET","restPath":"/pets/*","serviceVersion":"v1","representedPartyClass":"COM","representedPartyCode":"p",` +
	`"messageId":"m \"1\"","messageUserId":"EE3","messageIssue":"Ä/1","messageProtocolVersion":"4.0",` +
	`"clientSecurityServerAddress":"ss1.example.org","serviceSecurityServerAddress":"ss2.example.org",` +
	`"requestSize":10,"requestMimeSize":20,"requestAttachmentCount":0,"responseSize":11,"responseMimeSize":21,"responseAttachmentCount":2,` +
	`"succeeded":true,"serviceType":"WSDL","faultCode":"server.x","faultString":"a\nb","statusCode":200,"xRequestId":"r-1","xRoadVersion":"7.8.1"}]}`

// clock is a time that tests set.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func open(t testing.TB, cfg opmonitor.Config) (*opmonitor.Store, *clock) {
	t.Helper()
	c := &clock{start}
	cfg.Now = c.now
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := opmonitor.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

// payload decompresses what a query found.
func payload(t testing.TB, r *opmonitor.Result) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(r.JSON))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ids returns the message ids that a query finds, and where the next begins.
func ids(t testing.TB, s *opmonitor.Store, q opmonitor.Query) (found string, next int64) {
	t.Helper()
	if q.To == 0 {
		q.To = 1 << 40
	}
	r, err := s.Find(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Records []struct{ MessageID string }
	}
	if err := json.Unmarshal([]byte(payload(t, r)), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Records) != r.Count {
		t.Errorf("%d records, counted %d", len(doc.Records), r.Count)
	}
	var all []string
	for _, r := range doc.Records {
		all = append(all, r.MessageID)
	}
	return strings.Join(all, " "), r.NextFrom
}

// add adds a record of every id and writes them.
func add(s *opmonitor.Store, names string) {
	for name := range strings.FieldsSeq(names) {
		s.Add(&opmonitor.Record{MessageID: name, Succeeded: true})
	}
	s.Flush()
}

func TestRecord(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{InternalIP: "10.0.0.1", Endpoint: func(s id.Service, method, path string) string {
		if s.Code() != "query" || method != "GET" || path != "/pets/7" {
			t.Errorf("asked for the endpoint of %s %s of %s", method, path, s)
		}
		return "/pets/*"
	}})
	r := full(t)
	s.Add(&r)
	s.Flush()
	found, err := s.Find(t.Context(), opmonitor.Query{To: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if got := payload(t, found); got != fullJSON {
		t.Errorf("%s\nexpected\n%s", got, fullJSON)
	}
	if !json.Valid([]byte(fullJSON)) {
		t.Error("the expectation is no JSON")
	}
	if r.InternalIP != "" {
		t.Error("Add changed the caller's record")
	}
}

func TestAbsent(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{Endpoint: func(id.Service, string, string) string { return "never" }})
	s.Add(&opmonitor.Record{ServerType: opmonitor.Client, Client: client(t, "T/GOV/1"), Path: "/secret"})
	s.Flush()
	found, err := s.Find(t.Context(), opmonitor.Query{To: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"records":[{"monitoringDataTs":1800000000,"securityServerType":"Client","clientXRoadInstance":"T","clientMemberClass":"GOV","clientMemberCode":"1","succeeded":false}]}`
	if got := payload(t, found); got != want {
		t.Error(got)
	}
}

func TestTextsAreCut(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{})
	s.Add(&opmonitor.Record{MessageID: strings.Repeat("ä", 300), FaultString: strings.Repeat("€", 3000)})
	s.Flush()
	found, err := s.Find(t.Context(), opmonitor.Query{To: 1 << 40, Fields: []string{"messageId", "faultString"}})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"records":[{"messageId":"%s","faultString":"%s"}]}`, strings.Repeat("ä", 255), strings.Repeat("€", 2048))
	if got := payload(t, found); got != want {
		t.Error(got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	s, c := open(t, opmonitor.Config{})
	add(s, "a b")
	c.Time = start.Add(time.Second)
	add(s, "c")
	add(s, "d") // another block of the same second
	c.Time = start.Add(5 * time.Second)
	add(s, "e")
	at := start.Unix()
	for _, test := range []struct {
		from, to int64
		max      int
		want     string
		next     int64
	}{
		{0, at + 9, 0, "a b c d e", 0},
		{at, at, 0, "a b", 0},
		{at + 1, at + 1, 0, "c d", 0},
		{at + 1, at + 5, 0, "c d e", 0},
		{at + 2, at + 4, 0, "", 0},
		{at + 6, at + 9, 0, "", 0},
		{at, at + 9, 1, "a b", at + 1}, // a second is not cut
		{at, at + 9, 2, "a b", at + 1},
		{at, at + 9, 3, "a b c d", at + 2},
		{at, at + 1, 3, "a b c d", 0}, // nothing is left out
		{at + 2, at + 9, 1, "e", 0},
	} {
		if got, next := ids(t, s, opmonitor.Query{From: test.from, To: test.to, Max: test.max}); got != test.want || next != test.next {
			t.Errorf("%d to %d, at most %d: %q and more from %d; expected %q and %d", test.from-at, test.to-at, test.max, got, next-at, test.want, test.next-at)
		}
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{InternalIP: "10.0.0.1"})
	for i, pair := range [][2]string{
		{"T/GOV/1/a", "T/GOV/2/p/x"}, {"T/GOV/1/a", "T/GOV/3/p/x"}, {"T/GOV/2/p", "T/GOV/1/a/y"}, {"T/GOV/1", "T/GOV/2/p/x"}, {"T/COM/1/a", "T/GOV/2/p/z"},
	} {
		s.Add(&opmonitor.Record{MessageID: fmt.Sprint(i), Client: client(t, pair[0]), Service: service(t, pair[1])})
	}
	s.Flush()
	for _, test := range []struct{ party, provider, message, want string }{
		{"", "", "", "0 1 2 3 4"},
		{"T/GOV/1/a", "", "", "0 1 2"}, // in either role
		{"T/GOV/1", "", "", "3"},       // a member is not its subsystems
		{"", "T/GOV/2/p", "", "0 3 4"},
		{"T/GOV/1/a", "T/GOV/2/p", "", "0"},
		{"T/GOV/1/a", "T/GOV/1/a", "", "2"},
		{"T/GOV/9/a", "", "", ""},
		{"", "", "3", "3"},
		{"T/GOV/1/a", "", "3", ""},
	} {
		q := opmonitor.Query{MessageID: test.message}
		if test.party != "" {
			q.Party = client(t, test.party)
		}
		if test.provider != "" {
			q.Provider = client(t, test.provider)
		}
		if got, _ := ids(t, s, q); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
	for party, want := range map[string]string{
		"":          `{"records":[{"securityServerInternalIp":"10.0.0.1","messageId":"3","succeeded":false}]}`,
		"T/GOV/2/p": `{"records":[{"messageId":"3","succeeded":false}]}`,
	} {
		q := opmonitor.Query{To: 1 << 40, MessageID: "3", Fields: []string{"succeeded", "securityServerInternalIp", "messageId"}}
		if party != "" {
			q.Party = client(t, party)
		}
		r, err := s.Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got := payload(t, r); got != want {
			t.Errorf("for %q: %s", party, got)
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, want := range []string{"a0 b0", "a0 b0 a1 b1", "a0 b0 a1 b1 a2 b2"} {
		s, c := open(t, opmonitor.Config{Dir: dir})
		c.Time = start.Add(time.Duration(i) * time.Minute)
		add(s, fmt.Sprintf("a%d b%[1]d", i))
		if got, _ := ids(t, s, opmonitor.Query{}); got != want {
			t.Errorf("after %d restarts: %q", i, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilled kills a process in the middle of its work. Run as that process, it
// writes some records, adds others and waits for its end.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("OPMONITOR_VICTIM"); dir != "" {
		s, err := opmonitor.Open(opmonitor.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		add(s, "a b")
		add(s, "c")
		s.Add(&opmonitor.Record{MessageID: "unwritten"})
		fmt.Println("ready")
		select {}
	}
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "OPMONITOR_VICTIM="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if e := cmd.Process.Kill(); e != nil {
		t.Fatal(e)
	}
	if cmd.Wait() == nil || err != nil || line != "ready\n" {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	s, err := opmonitor.Open(opmonitor.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	add(s, "d")
	if got, _ := ids(t, s, opmonitor.Query{}); got != "a b c d" {
		t.Errorf("after kill -9: %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// segment returns the only segment file.
func segment(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.opdata"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0]
}

func TestTornWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, opmonitor.Config{Dir: dir})
	add(s, "a")
	whole, err := os.ReadFile(segment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	add(s, "b")
	both, err := os.ReadFile(segment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(both) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "0000000000000000.opdata"), both[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, opmonitor.Config{Dir: dir})
		add(s, "c")
		want := "c"
		if n >= len(whole) {
			want = "a c"
		}
		if got, _ := ids(t, s, opmonitor.Query{}); got != want {
			t.Errorf("cut to %d bytes: %q, expected %q", n, got, want)
		}
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, opmonitor.Config{Dir: dir})
	add(s, "a")
	one, err := os.ReadFile(segment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	add(s, "b")
	add(s, "c")
	file, err := os.ReadFile(segment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	file[len(one)+30] ^= 1 // in the middle of b
	if err := os.WriteFile(segment(t, dir), file, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := ids(t, s, opmonitor.Query{}); got != "a c" {
		t.Errorf("beside the damage: %q", got)
	}
}

func TestClockPutBack(t *testing.T) {
	t.Parallel()
	s, c := open(t, opmonitor.Config{})
	add(s, "a")
	c.Time = start.Add(time.Hour)
	add(s, "future")
	c.Time = start.Add(time.Second)
	add(s, "b")
	add(s, "c")
	if got, _ := ids(t, s, opmonitor.Query{From: start.Unix(), To: start.Add(time.Minute).Unix()}); got != "a b c" {
		t.Errorf("%q", got)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, c := open(t, opmonitor.Config{Dir: dir, Keep: 16 * time.Minute})
	for i := range 40 {
		c.Time = start.Add(time.Duration(i) * time.Minute)
		add(s, fmt.Sprint(i))
	}
	var want []string
	for i := 23; i < 40; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if got, _ := ids(t, s, opmonitor.Query{}); got != strings.Join(want, " ") {
		t.Errorf("after 40 minutes: %q", got)
	}
	if st := s.Stats(); st.Segments > 18 || st.Stored != 40 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

// TestIdle looks at a gateway that nobody uses any more: what it kept goes, too.
func TestIdle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, c := open(t, opmonitor.Config{Dir: dir, Keep: time.Hour})
	add(s, "a")
	c.Time = start.Add(time.Hour + 2*time.Second)
	s.Flush()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%v is left, %v", files, err)
	}
	add(s, "b")
	if got, _ := ids(t, s, opmonitor.Query{}); got != "b" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, c := open(t, opmonitor.Config{Dir: dir, MaxBytes: 16 << 10})
	for i := range 300 {
		c.Time = start.Add(time.Duration(i) * time.Second)
		add(s, fmt.Sprintf("%0200d", i))
	}
	var size int64
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	found, _ := ids(t, s, opmonitor.Query{})
	if size > 16<<10 || size != s.Stats().Bytes || size < 8<<10 || !strings.HasSuffix(found, "299") {
		t.Errorf("%d bytes are kept, %d by its own count", size, s.Stats().Bytes)
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{Buffer: 3})
	for i := range 5 {
		s.Add(&opmonitor.Record{MessageID: fmt.Sprint(i), Succeeded: true})
	}
	s.Flush()
	add(s, "5")
	if got, _ := ids(t, s, opmonitor.Query{}); got != "0 1 2 5" {
		t.Errorf("of five, three fit: %q", got)
	}
	if st := s.Stats(); st.Lost != 2 || st.Stored != 4 {
		t.Errorf("%+v", st)
	}
}

// A flood of refused requests pushes out no record of an exchange that took
// place, neither while they wait nor from the files.
func TestRefusedRequestsAreBounded(t *testing.T) {
	t.Parallel()
	s, c := open(t, opmonitor.Config{MaxBytes: 64 << 10, Buffer: 400})
	flood := func(n int) {
		for i := range n {
			s.Add(&opmonitor.Record{ServerType: opmonitor.Producer, MessageID: fmt.Sprintf("x%0200d", i), FaultCode: "server.serverproxy.ssl_authentication_failed"})
		}
	}
	const exchanges = 150
	for i := range exchanges {
		c.Time = start.Add(time.Duration(i) * time.Second)
		flood(500) // more than the buffer holds
		s.Add(&opmonitor.Record{ServerType: opmonitor.Producer, MessageID: fmt.Sprintf("%0200d", i), Succeeded: i%2 == 0, RequestOut: opmonitor.Millis(c.Time)})
		s.Flush()
	}
	found, _ := ids(t, s, opmonitor.Query{})
	kept, refused := 0, 0
	for _, name := range strings.Fields(found) {
		if strings.HasPrefix(name, "x") {
			refused++
		} else {
			kept++
		}
	}
	if kept != exchanges || refused == 0 {
		t.Errorf("%d of %d exchanges are kept, and %d refused requests", kept, exchanges, refused)
	}
	if st := s.Stats(); st.Bytes > 64<<10 || st.Lost+st.Stored != exchanges*501 {
		t.Errorf("%+v", st)
	}
}

func TestNoDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x")
	s, _ := open(t, opmonitor.Config{Dir: dir})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	add(s, "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	add(s, "c")
	if got, _ := ids(t, s, opmonitor.Query{}); got != "c" || s.Stats().Lost != 2 {
		t.Errorf("%q, %+v", got, s.Stats())
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s, _ := open(t, opmonitor.Config{})
	const n = 12_000 // more than one block
	for i := range n {
		s.Add(&opmonitor.Record{MessageID: fmt.Sprint(i), Succeeded: true})
	}
	s.Flush()
	found, next := ids(t, s, opmonitor.Query{})
	if got := strings.Fields(found); len(got) != n || got[n-1] != fmt.Sprint(n-1) || next != 0 {
		t.Errorf("%d records, next from %d", len(got), next)
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	text := rapid.StringOf(rapid.SampledFrom([]rune{'a', 'b', 'ä'}))
	rapid.Check(t, func(t *rapid.T) {
		second := rapid.Int64Range(0, 1<<40).Draw(t, "second")
		var rows []opmonitor.Row
		for range rapid.IntRange(0, 20).Draw(t, "rows") {
			var numbers []opmonitor.Number
			for range opmonitor.NumberCount {
				numbers = append(numbers, opmonitor.Number(rapid.Uint64().Draw(t, "number")))
			}
			numbers[0] = opmonitor.Num(second)
			rows = append(rows, opmonitor.NewRow(rapid.SliceOfN(text, opmonitor.TextCount, opmonitor.TextCount).Draw(t, "texts"), numbers))
		}
		got, err := opmonitor.DecodeBlock(opmonitor.EncodeBlock(second, rows...))
		if err != nil || !slices.Equal(got, rows) {
			t.Fatalf("%v\nbecame, with %v,\n%v", rows, err, got)
		}
	})
}

func FuzzBlock(f *testing.F) {
	r := opmonitor.NewRow([]string{"a", "b", "a"}, []opmonitor.Number{1, 2})
	f.Add(opmonitor.EncodeBlock(5, r, r))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := opmonitor.DecodeBlock(b)
		if err != nil || len(rows) == 0 {
			return
		}
		second := int64(0)
		for i := range 8 {
			second |= int64(b[i]) << (8 * i)
		}
		again, err := opmonitor.DecodeBlock(opmonitor.EncodeBlock(second, rows...))
		if err != nil || !slices.Equal(again, rows) {
			t.Errorf("%v became %v, %v", rows, again, err)
		}
	})
}

// BenchmarkAdd is what an exchange pays for its record; the writer's part, which
// runs beside it, is in BenchmarkWrite.
func BenchmarkAdd(b *testing.B) {
	s, _ := open(b, opmonitor.Config{Buffer: 1 << 14})
	r := full(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%(1<<14) == 1<<14-1 {
			b.StopTimer()
			s.Flush()
			b.StartTimer()
		}
		s.Add(&r)
	}
}

func BenchmarkWrite(b *testing.B) {
	s, _ := open(b, opmonitor.Config{Buffer: 1000})
	r := full(b)
	r.FaultCode, r.FaultString = "", ""
	var ids [1000]string
	for i := range ids {
		ids[i] = fmt.Sprintf("%036d", i)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r.MessageID, r.RequestID = ids[n%1000], ids[n%1000]
		s.Add(&r)
		if n++; n%1000 == 0 {
			s.Flush()
		}
	}
	b.ReportMetric(float64(s.Stats().Bytes)/float64(n), "B/record")
}
