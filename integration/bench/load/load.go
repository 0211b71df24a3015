// SPDX-License-Identifier: Apache-2.0

// Package load is the load generator: a fixed number of clients, each with one
// connection that it keeps, each asking again as soon as it is answered. It
// writes and reads HTTP/1.1 by itself, since it shares the CPUs with what it
// measures. Every answer is checked.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"slices"
	"strconv"
	"time"

	"kontor/integration/bench/service"
)

// Request is what all clients ask.
type Request struct {
	Addr   string           // host:port
	Head   []byte           // request line, header and, if short, body
	Upload *service.Content // follows Head
	Tail   []byte           // follows Upload

	// IDAt is where in Head a message id ends in [IDDigits] digits, which each
	// request gets anew; 0: the answers' x-road-id tells the id.
	IDAt int

	Want     *service.Content // the body of the answer
	Contains []byte           // if Want is nil: what a body of at most 64 KiB holds
}

// IDDigits is the length of the number in a message id.
const IDDigits = 12

// Options are how much to ask.
type Options struct {
	Clients int
	Warm    time.Duration // not measured
	Length  time.Duration // at least one exchange per client is made
	Begin   func() error  // called between the two
}

// Result is what was measured.
type Result struct {
	Exchanges     int           // that ended in the measured time
	Elapsed       time.Duration // that time
	After         int           // those, and what was then still under way
	All           int           // all, with those before it
	P50, P99, Max time.Duration
	IDs           []string // message ids of some exchanges
}

// Rate is exchanges per second.
func (r Result) Rate() float64 { return float64(r.Exchanges) / r.Elapsed.Seconds() }

// client is one client and what it saw.
type client struct {
	conn   net.Conn
	br     *bufio.Reader
	head   []byte
	buf    []byte
	took   []time.Duration // of exchanges that ended in the measured time or later
	late   int             // how many of them ended later
	all    int
	lastID string
	ids    []string
}

// stuck is how long one exchange may take.
const stuck = 5 * time.Minute

// Run keeps clients busy for a while. Any answer that is not as it should be,
// and any broken connection, is an error.
func Run(ctx context.Context, q Request, o Options) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients := make([]*client, o.Clients)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.conn.Close()
			}
		}
	}()
	for i := range clients {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", q.Addr)
		if err != nil {
			return Result{}, err
		}
		if err := conn.SetDeadline(time.Now().Add(o.Warm + o.Length + stuck)); err != nil {
			return Result{}, err
		}
		clients[i] = &client{conn: conn, br: bufio.NewReaderSize(conn, 16<<10), head: slices.Clone(q.Head)}
	}
	abort := context.AfterFunc(ctx, func() {
		for _, c := range clients {
			c.conn.Close()
		}
	})
	defer abort()

	start := time.Now()
	warm := start.Add(o.Warm)
	end := warm.Add(o.Length)
	ended := make(chan error, o.Clients)
	for i, c := range clients {
		go func() {
			err := c.run(q, uint64(start.UnixMicro())+uint64(i)<<32, warm, end)
			if err != nil {
				cancel(err)
			}
			ended <- err
		}()
	}
	var failed error
	if o.Warm > 0 {
		select {
		case <-time.After(time.Until(warm)):
		case <-ctx.Done():
		}
	}
	if o.Begin != nil {
		if failed = o.Begin(); failed != nil {
			cancel(failed)
		}
	}
	for range clients {
		if err := <-ended; err != nil && failed == nil {
			failed = context.Cause(ctx)
		}
	}
	if failed != nil {
		return Result{}, failed
	}
	late := 0
	r := Result{Elapsed: o.Length}
	for _, c := range clients {
		late += c.late
		r.After += len(c.took)
	}
	// Few exchanges that take long: all of them count, and all of their time.
	long := r.After-late < o.Clients
	if long {
		r.Elapsed = time.Since(warm)
	}
	var took []time.Duration
	for _, c := range clients {
		if !long {
			c.took = c.took[:len(c.took)-c.late]
		}
		took = append(took, c.took...)
		r.All += c.all
		r.IDs = append(append(r.IDs, c.ids...), c.lastID)
	}
	r.IDs = slices.DeleteFunc(r.IDs, func(id string) bool { return id == "" })
	if r.Exchanges = len(took); r.Exchanges == 0 {
		return r, errors.New("no exchange ended in the measured time or later")
	}
	slices.Sort(took)
	r.P50, r.P99, r.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return r, nil
}

func (c *client) run(q Request, id uint64, warm, end time.Time) error {
	for {
		began := time.Now()
		if c.all > 0 && !began.Before(end) {
			return nil
		}
		if q.IDAt > 0 {
			number(c.head[q.IDAt:q.IDAt+IDDigits], id)
			id++
		}
		if err := c.exchange(q); err != nil {
			return err
		}
		c.all++
		if ended := time.Now(); !ended.Before(warm) {
			c.took = append(c.took, ended.Sub(began))
			if ended.After(end) {
				c.late++
			}
		}
		if q.IDAt > 0 {
			c.lastID = SOAPID + string(c.head[q.IDAt:q.IDAt+IDDigits])
		}
		if c.all == 1 {
			c.ids = append(c.ids, c.lastID)
		}
	}
}

// number writes the last digits of n.
func number(to []byte, n uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i], n = '0'+byte(n%10), n/10
	}
}

func (c *client) exchange(q Request) error {
	if _, err := c.conn.Write(c.head); err != nil {
		return err
	}
	if q.Upload != nil {
		if _, err := io.Copy(struct{ io.Writer }{c.conn}, q.Upload.Reader()); err != nil {
			return fmt.Errorf("while sending: %w", errors.Join(err, c.answer(q)))
		}
		if _, err := c.conn.Write(q.Tail); err != nil {
			return err
		}
	}
	return c.answer(q)
}

// answer reads one answer and checks it.
func (c *client) answer(q Request) error {
	status, length, err := c.readHead()
	if err != nil {
		return err
	}
	var body io.Reader = io.LimitReader(c.br, length)
	if length < 0 {
		body = httputil.NewChunkedReader(c.br)
	}
	const small = 64 << 10
	if status != 200 || q.Want == nil {
		if len(c.buf) < small {
			c.buf = make([]byte, small)
		}
		n, err := io.ReadFull(body, c.buf[:small])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		b := c.buf[:n]
		if status != 200 || !bytes.Contains(b, q.Contains) {
			return fmt.Errorf("answer %d: %s", status, b)
		}
	} else {
		if c.buf == nil {
			c.buf = make([]byte, min(q.Want.Size+1, 256<<10))
		}
		check := q.Want.Checker()
		if _, err := io.CopyBuffer(check, struct{ io.Reader }{body}, c.buf); err != nil {
			return err
		}
		if err := check.Close(); err != nil {
			return err
		}
	}
	if length < 0 { // the end of the trailer
		_, err = c.br.Discard(2)
	}
	return err
}

// readHead reads the head of an answer; length is that of its body, -1 if that
// comes in chunks.
func (c *client) readHead() (status int, length int64, err error) {
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("status line %q", line)
	}
	known := false
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if !known {
				return 0, 0, errors.New("an answer without Content-Length")
			}
			return status, length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, 0, err
			}
			known = true
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length, known = -1, true
		case bytes.EqualFold(name, []byte("x-road-id")):
			c.lastID = string(bytes.TrimSpace(value))
		}
	}
}
