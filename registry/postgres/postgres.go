// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps the journal of a registry in a PostgreSQL database, so
// that several nodes can share it.
//
// The database holds three tables in the connection's schema: kontor_journal
// with the entries, kontor_head with what the last append left as head, and
// kontor_schema with the version of this layout. The one row of kontor_head is
// what appends compete for: whoever changes it from the head that the new
// entries follow has its entries accepted; the others learn that they are late.
// So the journal cannot fork, whatever the nodes believe.
//
// Nothing is ever updated or deleted in kontor_journal. A program that finds
// entries changed refuses the journal, as with every other store.
package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"kontor/registry"
)

const (
	connectTimeout = 5 * time.Second
	// opTimeout bounds what is short: a transaction, a question.
	opTimeout = 10 * time.Second
	// resolveTimeout is how long Append tries to learn the fate of a commit whose
	// answer was lost, before it leaves that to later calls.
	resolveTimeout = 10 * time.Second
	// idleLimit ends the transaction of a node that vanished in the middle of it
	// and would block all others.
	idleLimit = "5s"

	maxPassword = 4 << 10

	channel = "kontor_journal"
)

// Config says where the database is.
type Config struct {
	// DSN is a connection string, as "host=db1,db2 dbname=kontor user=kontor
	// sslmode=verify-full" or a postgres:// URL, without the password. Of several
	// hosts, the one that takes writes is used.
	DSN string
	// PasswordFile holds the password; it is read for every connection, so that
	// it can be changed at any time. Empty: the server asks for none.
	PasswordFile string
}

// Store is a registry.SharedStore.
type Store struct {
	pool       *pgxpool.Pool
	config     *pgx.ConnConfig
	before     func(context.Context, *pgx.ConnConfig) error
	resolveFor time.Duration
	// uncertain is set while a commit of this store may still be on its way.
	uncertain atomic.Bool
}

var _ registry.SharedStore = (*Store)(nil)

// Open connects to the database and brings its tables to the current version.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("registry database: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	pc, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, err // pgx leaves the password out
	}
	cc := pc.ConnConfig
	if err := protected(cc); err != nil {
		return nil, err
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = connectTimeout
	}
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "kontor registry"
	}
	if cc.ValidateConnect == nil && len(cc.Fallbacks) > 0 {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// A database host that vanishes without a word is noticed in half a minute.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	cc.DialFunc = dialer.DialContext
	s := &Store{config: cc, resolveFor: resolveTimeout, before: func(_ context.Context, c *pgx.ConnConfig) error {
		if cfg.PasswordFile == "" {
			return nil
		}
		password, err := readPassword(cfg.PasswordFile)
		c.Password = password
		return err
	}}
	pc.BeforeConnect = s.before
	pc.MaxConns = 4
	if s.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// protected refuses connections over a network that others could listen to or
// answer.
func protected(cc *pgx.ConnConfig) error {
	hosts := []struct {
		host string
		tls  *tls.Config
	}{{cc.Host, cc.TLSConfig}}
	for _, f := range cc.Fallbacks {
		hosts = append(hosts, struct {
			host string
			tls  *tls.Config
		}{f.Host, f.TLSConfig})
	}
	for _, h := range hosts {
		if filepath.IsAbs(h.host) || strings.HasPrefix(h.host, "@") || h.host == "localhost" {
			continue
		}
		if ip := net.ParseIP(h.host); ip != nil && ip.IsLoopback() {
			continue
		}
		if h.tls == nil || h.tls.InsecureSkipVerify && h.tls.VerifyPeerCertificate == nil && h.tls.VerifyConnection == nil {
			return fmt.Errorf("the connection to %s would not be protected; add sslmode=verify-full (and sslrootcert=FILE) to the DSN", h.host)
		}
	}
	return nil
}

func readPassword(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	if info.Size() > maxPassword {
		return "", fmt.Errorf("password_file %s is larger than %d bytes; this is not a password", file, maxPassword)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// versions are the steps that make the tables, each from the one before.
var versions = []string{
	`CREATE TABLE kontor_journal (number bigint PRIMARY KEY CHECK (number > 0), entry bytea NOT NULL);
	 CREATE TABLE kontor_head (one boolean PRIMARY KEY DEFAULT true CHECK (one), number bigint NOT NULL, head bytea);
	 INSERT INTO kontor_head (number) VALUES (0)`,
}

// migrate makes the tables, or what a newer version of them has more. Nodes that
// start at the same time take turns.
func (s *Store) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*opTimeout)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(7205759403792793601)`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS kontor_schema (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL)`); err != nil {
			return fmt.Errorf("make tables: %w", err)
		}
		var have int
		err := tx.QueryRow(ctx, `SELECT version FROM kontor_schema`).Scan(&have)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if have > len(versions) {
			return fmt.Errorf("its tables are of version %d and this program knows %d; use the newer program", have, len(versions))
		}
		for _, step := range versions[have:] {
			if _, err := tx.Exec(ctx, step); err != nil {
				return fmt.Errorf("make tables: %w", err)
			}
		}
		if have == len(versions) {
			return nil
		}
		_, err = tx.Exec(ctx, `INSERT INTO kontor_schema (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = EXCLUDED.version`, len(versions))
		return err
	})
}

// Append implements registry.Store. Lost connections are tried again as long as
// nothing can have been stored.
func (s *Store) Append(previous []byte, first uint64, entries [][]byte, head []byte) error {
	if len(entries) == 0 {
		return errors.New("nothing to append")
	}
	if err := s.settle(); err != nil {
		return err
	}
	timeout := opTimeout
	for _, e := range entries {
		timeout += time.Duration(len(e)) * time.Microsecond // 1 MB/s
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	committing, err := s.append(ctx, previous, first, entries, head)
	if err != nil && !committing && lost(err) {
		committing, err = s.append(ctx, previous, first, entries, head)
	}
	if err == nil || !committing {
		return describe(err)
	}
	if !lost(err) && ctx.Err() == nil {
		return describe(err) // the server says no
	}
	return s.resolve(first, entries, err)
}

// append is one transaction; committing reports whether it came to the point
// after which only the server knows its fate.
func (s *Store) append(ctx context.Context, previous []byte, first uint64, entries [][]byte, head []byte) (committing bool, err error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			// On a context of its own: a rollback that is not sent leaves the row
			// locked until the server notices.
			back, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			tx.Rollback(back) //nolint:errcheck // the transaction is over either way
		}
	}()
	// Acknowledged is durable, even if the server's default is otherwise.
	_, err = tx.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', $1, true),
		set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on' ELSE current_setting('synchronous_commit') END, true)`, idleLimit)
	if err != nil {
		return false, err
	}
	last := first + uint64(len(entries)) - 1
	tag, err := tx.Exec(ctx, `UPDATE kontor_head SET number = $1, head = $2 WHERE number = $3 AND head IS NOT DISTINCT FROM $4`, int64(last), head, int64(first-1), previous)
	if err != nil {
		return false, err
	}
	if tag.RowsAffected() != 1 {
		return false, registry.ErrMoved
	}
	n, err := tx.CopyFrom(ctx, pgx.Identifier{"kontor_journal"}, []string{"number", "entry"}, pgx.CopyFromSlice(len(entries), func(i int) ([]any, error) {
		return []any{int64(first) + int64(i), entries[i]}, nil
	}))
	if err != nil {
		return false, err
	}
	if n != int64(len(entries)) {
		return false, fmt.Errorf("%d of %d entries were stored", n, len(entries))
	}
	if _, err = tx.Exec(ctx, `SELECT pg_notify('`+channel+`', $1::text)`, fmt.Sprint(last)); err != nil {
		return false, err
	}
	return true, tx.Commit(ctx)
}

// resolve finds out what became of a commit whose answer was lost.
func (s *Store) resolve(first uint64, entries [][]byte, cause error) error {
	s.uncertain.Store(true)
	deadline := time.Now().Add(s.resolveFor)
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		err := s.settle()
		if err == nil {
			break
		}
		if time.Now().Add(wait).After(deadline) {
			return fmt.Errorf("%w: %w", registry.ErrUncertain, describe(cause))
		}
		time.Sleep(wait)
	}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	last := len(entries) - 1
	var stored []byte
	err := s.pool.QueryRow(ctx, `SELECT entry FROM kontor_journal WHERE number = $1`, int64(first)+int64(last)).Scan(&stored)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !bytes.Equal(stored, entries[last]):
		return fmt.Errorf("nothing was stored: %w", describe(cause))
	case err != nil:
		return fmt.Errorf("%w: %w", registry.ErrUncertain, describe(err))
	}
	return nil
}

// settle waits until no commit of this store can be on its way any more: an
// unfinished one holds the lock of the head.
func (s *Store) settle() error {
	if !s.uncertain.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT number FROM kontor_head FOR UPDATE`)
		return err
	})
	if err != nil {
		return describe(err)
	}
	s.uncertain.Store(false)
	return nil
}

// Scan implements registry.Store; entries arrive one by one.
func (s *Store) Scan(from uint64, fn func(number uint64, entry []byte) error) error {
	if err := s.settle(); err != nil {
		return err
	}
	rows, err := s.pool.Query(context.Background(), `SELECT number, entry FROM kontor_journal WHERE number >= $1 ORDER BY number`, int64(from))
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	for rows.Next() {
		var number int64
		var entry pgtype.DriverBytes
		if err := rows.Scan(&number, &entry); err != nil {
			return describe(err)
		}
		if err := fn(uint64(number), entry); err != nil {
			return err
		}
	}
	return describe(rows.Err())
}

// Head implements registry.Store.
func (s *Store) Head() ([]byte, error) {
	if err := s.settle(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	var head []byte
	err := s.pool.QueryRow(ctx, `SELECT head FROM kontor_head`).Scan(&head)
	if lost(err) { // a connection that broke while it was not used
		err = s.pool.QueryRow(ctx, `SELECT head FROM kontor_head`).Scan(&head)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: kontor_head is empty", registry.ErrJournal)
	}
	return head, describe(err)
}

// Watch implements registry.SharedStore by LISTEN, on a connection of its own.
func (s *Store) Watch(ctx context.Context, changed func()) error {
	cc := s.config.Copy()
	if err := s.before(ctx, cc); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return describe(err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(closing) //nolint:errcheck // nothing was written
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return describe(err)
	}
	for {
		changed()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return describe(err)
		}
	}
}

// Close implements registry.Store.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// lost reports whether an error is about the connection or the server as a
// whole, not an answer to what was asked.
func lost(err error) bool {
	if err == nil || errors.Is(err, registry.ErrMoved) || errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 57P: shutdown, crash, cannot connect now; 08: connection; 25P03: idle in transaction.
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08") || pg.Code == "25P03"
	}
	return true
}

// describe turns the database's words into the registry's.
func describe(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, registry.ErrMoved), errors.Is(err, registry.ErrUncertain), errors.Is(err, registry.ErrJournal):
		return err
	case errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01"):
		return fmt.Errorf("%w: %s", registry.ErrMoved, pg.Message) // two at once, the other came first
	case lost(err):
		return fmt.Errorf("registry database cannot be reached: %w", err)
	}
	return fmt.Errorf("registry database: %w", err)
}
