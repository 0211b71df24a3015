// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/api/render"
	"go.step.sm/crypto/jose"
)

// Security servers roll their account keys over, which step-ca's server does
// not implement: once it has verified a request to do so, it answers 501, and
// only then. The rest of RFC 8555, 7.3.5, is here.

// Tables of step-ca's database that a new account key concerns.
var (
	accountTable  = []byte("acme_accounts")              // JSON with a member "key", by account
	keyIndexTable = []byte("acme_keyID_accountID_index") // account, by thumbprint of its key
)

// serveKeyChange lets step-ca's server verify the outer signature.
func (s *acmeServer) serveKeyChange(w http.ResponseWriter, r *http.Request) {
	answer := &heldAnswer{header: w.Header()}
	s.routes.ServeHTTP(answer, r)
	if answer.status != http.StatusNotImplemented {
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // a client that went away needs no answer
		return
	}
	a := applicantOf(r.Context())
	if err := s.changeKey(r.Context(), a); err != nil {
		var conflict *keyInUse
		if errors.As(err, &conflict) {
			w.Header().Set("Location", conflict.location)
			problem := acme.NewDetailedError(acme.ErrorMalformedType, "the new key belongs to an account already")
			problem.Status = http.StatusConflict
			err = problem
		}
		render.Error(w, r, acme.WrapErrorISE(err, "change account key"))
		return
	}
	serveJSON(w, a.account)
}

// heldAnswer keeps an answer back, but for its header.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header { return h.header }

func (h *heldAnswer) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *heldAnswer) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// keyInUse says whose key it is.
type keyInUse struct{ location string }

func (*keyInUse) Error() string { return "key in use" }

// changeKey judges the inner request, which the new key has signed.
func (s *acmeServer) changeKey(ctx context.Context, a *applicant) error {
	refuse := func(format string, args ...any) error {
		return acme.NewDetailedError(acme.ErrorMalformedType, format, args...)
	}
	jws, err := jose.ParseJWS(string(a.payload))
	if err != nil || len(jws.Signatures) != 1 {
		return refuse("the payload is not a JWS with one signature")
	}
	header := jws.Signatures[0].Protected
	key := header.JSONWebKey
	if key == nil || !key.Valid() || !key.IsPublic() {
		return refuse("the inner JWS has no public key in its protected header")
	}
	switch header.Algorithm {
	case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA:
	default:
		return acme.NewDetailedError(acme.ErrorBadSignatureAlgorithmType, "%s", header.Algorithm)
	}
	if k, ok := key.Key.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return acme.NewDetailedError(acme.ErrorBadPublicKeyType, "RSA keys need at least 2048 bits")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return refuse("the inner JWS is not signed with its key")
	}
	if url, _ := header.ExtraHeaders["url"].(string); url != "https://"+s.host+"/"+acmeName+"/"+acme.KeyChangeLinkType.String() || header.Nonce != "" {
		return refuse("the inner JWS must have the url of the outer one, and no nonce")
	}
	var change struct {
		Account string           `json:"account"`
		OldKey  *jose.JSONWebKey `json:"oldKey"`
	}
	if err := json.Unmarshal(payload, &change); err != nil || change.OldKey == nil || !change.OldKey.Valid() {
		return refuse("the inner payload does not name account and oldKey")
	}
	oldID, err := acme.KeyToID(a.account.Key)
	if err != nil {
		return err
	}
	claimed, err := acme.KeyToID(change.OldKey)
	if err != nil {
		return err
	}
	if change.Account != a.account.GetLocation() || claimed != oldID {
		return refuse("the inner payload names another account or another key than the request is signed with")
	}
	if key.KeyID, err = acme.KeyToID(key); err != nil {
		return err
	}
	return s.db.replaceKey(ctx, a.account, oldID, key)
}

// replaceKey gives an account a new key. A crash on the way leaves an account
// that has the old key, or the new one, and can be given the new one again.
func (d *acmeDB) replaceKey(ctx context.Context, acc *acme.Account, oldID string, key *jose.JSONWebKey) error {
	d.rekeying.Lock()
	defer d.rekeying.Unlock()
	switch owner, err := d.DB.GetAccountByKeyID(ctx, key.KeyID); {
	case acme.IsErrNotFound(err):
	case err != nil:
		return err
	case owner.ID != acc.ID:
		return &keyInUse{owner.GetLocation()}
	}
	raw, err := d.tables.Get(accountTable, []byte(acc.ID))
	if err != nil {
		return err
	}
	var row map[string]json.RawMessage
	if err := json.Unmarshal(raw, &row); err != nil {
		return fmt.Errorf("stored account: %w", err)
	}
	if row["key"], err = json.Marshal(key); err != nil {
		return err
	}
	next, err := json.Marshal(row)
	if err != nil {
		return err
	}
	if err := d.tables.Set(keyIndexTable, []byte(key.KeyID), []byte(acc.ID)); err != nil {
		return err
	}
	if _, swapped, err := d.tables.CmpAndSwap(accountTable, []byte(acc.ID), raw, next); err != nil {
		return err
	} else if !swapped {
		return errors.New("the account changed at the same time")
	}
	if key.KeyID == oldID {
		return nil
	}
	return d.tables.Del(keyIndexTable, []byte(oldID))
}
