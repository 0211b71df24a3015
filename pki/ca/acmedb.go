// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/acme/db/nosql"
	"github.com/smallstep/certificates/db"

	"kontor/pki"
)

const (
	// maxNonces bounds the nonces that wait to be used; the oldest give way.
	maxNonces = 1 << 14
	// maxNames bounds the names of an order.
	maxNames = 10
	// maxPending bounds the orders that an account may leave unfinished.
	maxPending = 20
)

// acmeDB is step-ca's ACME database but for what the authority decides itself:
// bindings, what may be ordered, and the record of what was issued.
type acmeDB struct {
	*nosql.DB
	tables *tables
	server *acmeServer
	nonces *nonces

	rekeying sync.Mutex // makes a key's change a unit
}

// CreateNonce keeps nonces in memory: anybody may ask for them, and a client
// whose nonce a restart forgot tries again (RFC 8555, 6.5).
func (d *acmeDB) CreateNonce(context.Context) (acme.Nonce, error) { return d.nonces.create(), nil }

func (d *acmeDB) DeleteNonce(_ context.Context, n acme.Nonce) error {
	if !d.nonces.use(n) {
		return acme.NewError(acme.ErrorBadNonceType, "unknown nonce")
	}
	return nil
}

// GetAccount is asked for the key that a request must be signed with.
func (d *acmeDB) GetAccount(ctx context.Context, id string) (*acme.Account, error) {
	acc, err := d.DB.GetAccount(ctx, id)
	if err == nil {
		applicantOf(ctx).account = acc
	}
	return acc, err
}

// GetAccountByKeyID finds only accounts with a binding, so that a key whose
// binding was withdrawn, or not completed before a crash, may come with a new one.
func (d *acmeDB) GetAccountByKeyID(ctx context.Context, kid string) (*acme.Account, error) {
	acc, err := d.DB.GetAccountByKeyID(ctx, kid)
	if err != nil {
		return nil, err
	}
	if _, err := d.server.ca.bindingOf(acc.ID); errors.Is(err, ErrUnknownBinding) {
		return nil, acme.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	return acc, nil
}

// CreateAccount makes the account and gives it the binding that it has proven.
func (d *acmeDB) CreateAccount(ctx context.Context, acc *acme.Account) error {
	kid, err := acme.KeyToID(acc.Key)
	if err != nil {
		return err
	}
	switch old, err := d.DB.GetAccountByKeyID(ctx, kid); {
	case err == nil:
		acc.ID = old.ID
	case !acme.IsErrNotFound(err):
		return err
	default:
		if err := d.DB.CreateAccount(ctx, acc); err != nil {
			return err
		}
	}
	err = d.server.ca.bind(applicantOf(ctx).kid, acc.ID)
	if errors.Is(err, ErrBinding) || errors.Is(err, ErrUnknownBinding) {
		return acme.NewDetailedError(acme.ErrorUnauthorizedType, "%s", err)
	}
	return err
}

// GetExternalAccountKey returns the binding that a new account names.
func (d *acmeDB) GetExternalAccountKey(ctx context.Context, _, kid string) (*acme.ExternalAccountKey, error) {
	b, err := d.server.ca.getBinding(kid)
	if errors.Is(err, ErrUnknownBinding) {
		return nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "%s", err)
	}
	if err != nil {
		return nil, err
	}
	if !b.Bound.IsZero() {
		return nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "the external account binding has an account already; ask the authority's operator for a new one")
	}
	a := applicantOf(ctx)
	if !a.proves(b.MACKey) {
		// step-ca would call it an internal error.
		return nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "the external account binding is not signed with the MAC key of its key identifier")
	}
	a.kid = kid
	return &acme.ExternalAccountKey{ID: b.KID, ProvisionerID: "acme/" + acmeName, HmacKey: b.MACKey, CreatedAt: b.Created}, nil
}

// UpdateExternalAccountKey has nothing left to do after CreateAccount.
func (d *acmeDB) UpdateExternalAccountKey(context.Context, string, *acme.ExternalAccountKey) error {
	return nil
}

// GetExternalAccountKeyByAccountID is asked before an order is made.
func (d *acmeDB) GetExternalAccountKeyByAccountID(ctx context.Context, _, account string) (*acme.ExternalAccountKey, error) {
	b, err := d.server.ca.bindingOf(account)
	if errors.Is(err, ErrUnknownBinding) {
		return nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "the account's external account binding was withdrawn")
	}
	if err != nil {
		return nil, err
	}
	pending, err := d.DB.GetOrdersByAccountID(ctx, account)
	if err != nil {
		return nil, err
	}
	if len(pending) >= maxPending {
		return nil, acme.NewDetailedError(acme.ErrorRateLimitedType, "the account has %d unfinished orders; they expire within a day", len(pending))
	}
	return &acme.ExternalAccountKey{ID: b.KID, AccountID: account, BoundAt: b.Bound}, nil
}

// CreateOrder refuses what no certificate could be made for, and settles the
// dates: an order may ask for less than the authority gives, not for more.
func (d *acmeDB) CreateOrder(ctx context.Context, o *acme.Order) error {
	b, err := d.server.ca.bindingOf(o.AccountID)
	if err != nil {
		return err
	}
	if len(o.Identifiers) > maxNames {
		return acme.NewDetailedError(acme.ErrorMalformedType, "an order has at most %d names", maxNames)
	}
	for _, i := range o.Identifiers {
		if i.Type != acme.DNS {
			return acme.NewDetailedError(acme.ErrorUnsupportedIdentifierType, "identifiers of type %q are not issued here, only dns", i.Type)
		}
		if !validDNSName(i.Value) {
			return acme.NewDetailedError(acme.ErrorRejectedIdentifierType, "%q is not the name of one server", i.Value)
		}
		if len(b.DNSNames) > 0 && !slices.ContainsFunc(b.DNSNames, func(n string) bool { return strings.EqualFold(n, i.Value) }) {
			return acme.NewDetailedError(acme.ErrorRejectedIdentifierType, "the external account binding does not include %q", i.Value)
		}
	}
	var asked struct {
		NotBefore time.Time `json:"notBefore"`
		NotAfter  time.Time `json:"notAfter"`
	}
	if err := json.Unmarshal(applicantOf(ctx).payload, &asked); err != nil {
		return acme.NewDetailedError(acme.ErrorMalformedType, "%s", err)
	}
	now := d.server.ca.cfg.Now().UTC().Truncate(time.Second)
	if !asked.NotBefore.IsZero() && asked.NotBefore.Sub(now).Abs() > backdate {
		return acme.NewDetailedError(acme.ErrorMalformedType, "certificates are valid from the time of issue; leave out notBefore")
	}
	o.NotBefore, o.NotAfter = now.Add(-backdate), now.Add(d.server.ca.cfg.Validity)
	if !asked.NotAfter.IsZero() && asked.NotAfter.Before(o.NotAfter) {
		if !asked.NotAfter.After(now) {
			return acme.NewDetailedError(acme.ErrorMalformedType, "notAfter %s is past", asked.NotAfter.Format(time.RFC3339))
		}
		o.NotAfter = asked.NotAfter.UTC()
	}
	return d.DB.CreateOrder(ctx, o)
}

// GetOrder, when the order is being finalised, gives it the names of the
// certificate request. step-ca compares the two and takes the common name for a
// DNS name, which in X-Road it seldom is; decide makes the comparison instead.
func (d *acmeDB) GetOrder(ctx context.Context, id string) (*acme.Order, error) {
	o, err := d.DB.GetOrder(ctx, id)
	a := applicantOf(ctx)
	if err != nil || !a.finalises || a.order != nil {
		return o, err
	}
	der, err := a.certificateRequest()
	if err != nil {
		return o, nil // step-ca refuses it
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return o, nil
	}
	real := *o
	a.order = &real
	o.Identifiers = nil
	name := func(typ acme.IdentifierType, value string) {
		o.Identifiers = append(o.Identifiers, acme.Identifier{Type: typ, Value: value})
	}
	for _, n := range append(slices.Clone(csr.DNSNames), csr.Subject.CommonName) {
		if net.ParseIP(n) != nil && n == csr.Subject.CommonName {
			name(acme.IP, n)
		}
		if net.ParseIP(n) == nil || slices.Contains(csr.DNSNames, n) {
			name(acme.DNS, n)
		}
	}
	return o, nil
}

// UpdateChallenge tells the applicant why his server could not be asked, which
// step-ca keeps to itself.
func (d *acmeDB) UpdateChallenge(ctx context.Context, ch *acme.Challenge) error {
	if e := ch.Error; e != nil && e.Err != nil && strings.HasSuffix(e.Type, ":connection") {
		told := *e
		told.Detail = e.Err.Error()
		ch.Error = &told
	}
	return d.DB.UpdateChallenge(ctx, ch)
}

// CreateCertificate records what was issued before the applicant can have it.
func (d *acmeDB) CreateCertificate(ctx context.Context, c *acme.Certificate) error {
	usage := pki.Authentication
	if pki.IsSignCert(c.Leaf) {
		usage = pki.Signing
	}
	rec := &Record{Certificate: c.Leaf, Usage: usage, Issued: d.server.ca.cfg.Now().UTC().Truncate(time.Second)}
	if err := d.server.ca.records.put(rec); err != nil {
		return fmt.Errorf("record certificate: %w", err)
	}
	return d.DB.CreateCertificate(ctx, c)
}

// nonces are the anti-replay values not used yet.
type nonces struct {
	mu    sync.Mutex
	known map[acme.Nonce]bool
	queue []acme.Nonce // a ring, oldest at next once full
	next  int
}

func newNonces() *nonces { return &nonces{known: map[acme.Nonce]bool{}} }

func (n *nonces) create() acme.Nonce {
	nonce := acme.Nonce(rand.Text())
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) < maxNonces {
		n.queue = append(n.queue, nonce)
	} else {
		delete(n.known, n.queue[n.next])
		n.queue[n.next] = nonce
		n.next = (n.next + 1) % maxNonces
	}
	n.known[nonce] = true
	return nonce
}

func (n *nonces) use(nonce acme.Nonce) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	ok := n.known[nonce]
	delete(n.known, nonce)
	return ok
}

// revocations lets step-ca's authority revoke in the authority's own records.
// The rest of its database serves functions that are not used.
type revocations struct{ ca *CA }

func (r revocations) IsRevoked(serial string) (bool, error) {
	n, ok := new(big.Int).SetString(serial, 10)
	if !ok {
		return false, ErrUnknownSerial
	}
	rec, err := r.ca.records.get(n)
	if err != nil {
		return false, err
	}
	return !rec.Revoked.IsZero(), nil
}

func (r revocations) Revoke(info *db.RevokedCertificateInfo) error {
	n, ok := new(big.Int).SetString(info.Serial, 10)
	if !ok {
		return ErrUnknownSerial
	}
	err := r.ca.Revoke(context.Background(), n, info.ReasonCode)
	if errors.Is(err, ErrRevoked) {
		return db.ErrAlreadyExists
	}
	return err
}

func (revocations) GetCertificate(string) (*x509.Certificate, error) {
	return nil, db.ErrNotImplemented
}
func (revocations) UseToken(string, string) (bool, error)      { return false, db.ErrNotImplemented }
func (revocations) IsSSHRevoked(string) (bool, error)          { return false, db.ErrNotImplemented }
func (revocations) RevokeSSH(*db.RevokedCertificateInfo) error { return db.ErrNotImplemented }
func (revocations) IsSSHHost(string) (bool, error)             { return false, db.ErrNotImplemented }
func (revocations) GetSSHHostPrincipals() ([]string, error)    { return nil, db.ErrNotImplemented }
func (revocations) Shutdown() error                            { return nil }

// requestedUsage says for what usage a certificate request asks, if it says so
// clearly: false if it names no key usages.
func requestedUsage(extensions []pkix.Extension) (pki.Usage, bool) {
	for _, e := range extensions {
		if !e.Id.Equal(oidKeyUsage) {
			continue
		}
		var bits asn1.BitString
		if rest, err := asn1.Unmarshal(e.Value, &bits); err != nil || len(rest) > 0 {
			return "", true
		}
		// Bits of RFC 5280, 4.2.1.3: digitalSignature, nonRepudiation,
		// keyEncipherment, dataEncipherment.
		auth, sign := bits.At(0)|bits.At(2)|bits.At(3) != 0, bits.At(1) != 0
		switch {
		case auth && !sign:
			return pki.Authentication, true
		case sign && !auth:
			return pki.Signing, true
		case auth && sign:
			return "", true
		}
	}
	return "", false
}
