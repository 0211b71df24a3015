// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/pki/tsa"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// Names of the checks of [VerifyContainer].
const (
	CheckContainer    = "container structure"
	CheckMimetype     = "mimetype"
	CheckManifest     = "manifest"
	CheckASiCManifest = "ASiC manifest"
	CheckSender       = "sender"
	CheckReferences   = "signature references"
	CheckHashChain    = "hash chain"
	CheckDigest       = "digest of " // + the entry, or "signed properties"
	CheckSignature    = "XML signature"
	CheckTSChain      = "time-stamp chain"
	CheckTSImprint    = "time-stamp imprint"
	CheckTSA          = "time-stamp authority"
	CheckCertificate  = "signing certificate"
	CheckChain        = "certificate chain"
	CheckOCSP         = "certificate status"
)

// Report is everything that was found about one container. Its JSON form is
// stable: fields are added, not changed.
type Report struct {
	Valid bool   `json:"valid"`
	File  string `json:"file,omitempty"` // as the caller names it

	Protocol  string `json:"protocol,omitempty"`  // "REST" or "SOAP"
	Direction string `json:"direction,omitempty"` // "request" or "response"
	// Sender is the client of a request, the service's owner in a response;
	// Client and Owner are always the two ends of the exchange.
	Sender     id.Client `json:"sender,omitzero"`
	SenderName string    `json:"sender_name,omitempty"`
	Client     id.Client `json:"client,omitzero"`
	ClientName string    `json:"client_name,omitempty"`
	Owner      id.Client `json:"service_owner,omitzero"`
	OwnerName  string    `json:"service_owner_name,omitempty"`
	Service    string    `json:"service,omitempty"` // with its version, in SOAP
	MessageID  string    `json:"message_id,omitempty"`
	RequestID  string    `json:"request_id,omitempty"`

	Stamped time.Time `json:"stamped,omitzero"` // by the time-stamp
	TSA     string    `json:"tsa,omitempty"`    // subject of its certificate
	Signed  time.Time `json:"signed,omitzero"`  // as the signer claims
	Judged  time.Time `json:"judged,omitzero"`  // the instant certificates were judged for

	Certificate *CertificateInfo `json:"certificate,omitempty"`
	Member      id.Member        `json:"member,omitzero"` // whom the certificate names
	Authority   string           `json:"authority,omitempty"`

	// Unverified lists parts that the signature covers and the container
	// does not hold, such as SOAP attachments: compare their digests.
	Unverified []PartDigest `json:"unverified,omitempty"`

	Checks []Check `json:"checks"`
}

// CertificateInfo describes the signing certificate.
type CertificateInfo struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // decimal
	SHA256    string    `json:"sha256"` // of its DER, hexadecimal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// PartDigest is the digest of a part as the signature covers it.
type PartDigest struct {
	Part      string `json:"part"`
	Algorithm string `json:"algorithm"` // URI
	Digest    string `json:"digest"`    // hexadecimal
}

// Check is one finding.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what was found, if it is right
	Err    string `json:"error,omitempty"`  // what is wrong
}

// Failed returns the checks that failed.
func (r *Report) Failed() []Check {
	return slices.DeleteFunc(slices.Clone(r.Checks), func(c Check) bool { return c.OK })
}

func (r *Report) check(name string, err error, detail string, args ...any) bool {
	c := Check{Name: name, OK: err == nil}
	if err == nil {
		c.Detail = fmt.Sprintf(detail, args...)
	} else {
		c.Err = err.Error()
	}
	r.Checks = append(r.Checks, c)
	return c.OK
}

// Options are the choices of [VerifyContainer].
type Options struct {
	// ClientName gives the display name of a member or subsystem, "" if
	// it has none. Nil means no names.
	ClientName func(id.Client) string
}

// VerifyReader reads a container and judges it. What is no container gives a
// report that says so.
func VerifyReader(r io.ReaderAt, size int64, trust Trust, o Options) *Report {
	return VerifyContainer(open(r, size), trust, o)
}

// VerifyContainer judges a container by what it holds and by the certificates
// in trust, at the time of its time-stamp. It never stops at the first
// finding. No network is used.
func VerifyContainer(c *Container, trust Trust, o Options) *Report {
	j := &judge{Report: new(Report), c: c, trust: trust, options: o}
	j.structure()
	if len(c.Message) > 0 {
		j.sender()
	}
	if len(c.Signatures) > 0 {
		j.signature()
	}
	j.Valid = len(j.Failed()) == 0
	return j.Report
}

const signedProperties = "signed properties"

type judge struct {
	*Report
	c       *Container
	trust   Trust
	options Options
	sig     *xades.Signature
}

// structure checks what is not evidence but carries it.
func (j *judge) structure() {
	c, read := j.c, j.c.read
	var errs []error
	if read != nil {
		errs = slices.Clone(read.problems)
	}
	if read == nil || !read.unreadable {
		errs = append(errs, c.complete()...)
	}
	for _, err := range errs {
		j.check(CheckContainer, err, "")
	}
	if len(errs) == 0 {
		j.check(CheckContainer, nil, "message, signature and %d attachments", len(c.Attachments))
	}
	if read == nil || read.unreadable {
		return // there is nothing else
	}
	var err error
	if string(read.mimetype) != MediaType {
		err = fmt.Errorf("it is %.80q", read.mimetype)
	}
	j.check(CheckMimetype, err, MediaType)
	j.check(CheckManifest, checkManifest(read.manifest, c.listed()), "lists every entry")
	switch want := asicManifest(c.TSChainResult); {
	case bytes.Equal(read.asicManifest, want):
		if want != nil {
			j.check(CheckASiCManifest, nil, "names the time-stamped data")
		}
	case want == nil:
		j.check(CheckASiCManifest, errors.New("it is there though no time-stamp chain is"), "")
	default:
		j.check(CheckASiCManifest, errors.New("it does not name the time-stamped data as it should"), "")
	}
}

func (j *judge) sender() {
	h, err := readHead(j.c.Message)
	if err != nil {
		j.check(CheckSender, err, "")
		return
	}
	j.Protocol, j.Direction = "SOAP", "request"
	if h.rest {
		j.Protocol = "REST"
	}
	if h.response {
		j.Direction = "response"
	}
	j.Sender, j.Client, j.Owner, j.Service = h.sender(), h.client, h.service.Owner(), h.service.String()
	j.MessageID, j.RequestID = h.id, h.requestID
	j.SenderName, j.ClientName, j.OwnerName = j.name(j.Sender), j.name(j.Client), j.name(j.Owner)
	j.check(CheckSender, nil, "%s", j.Sender)
}

// name returns the display name of a subsystem, or else of its member.
func (j *judge) name(c id.Client) string {
	if j.options.ClientName == nil {
		return ""
	}
	if name := j.options.ClientName(c); name != "" {
		return name
	}
	return j.options.ClientName(c.Member().Client())
}

func (j *judge) signature() {
	sig, err := xades.Parse(j.c.Signatures)
	if err != nil {
		j.check(CheckSignature, err, "")
		return
	}
	j.sig = sig
	j.Signed = sig.SigningTime()
	if cert := sig.Certificate(); cert != nil {
		j.Certificate = &CertificateInfo{
			Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: cert.SerialNumber.String(),
			SHA256: pki.HashOf(cert).Hex(), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		}
	}
	j.references()
	switch err := sig.Verify(); {
	case errors.Is(err, xades.ErrReference):
		j.check(CheckDigest+signedProperties, err, "")
	default:
		j.check(CheckSignature, err, "made with the key of the signing certificate")
	}
	j.timestamp()
	j.certificate()
}

// covered is what a signature says about one part.
type covered struct {
	alg    algorithm
	digest []byte
}

// references checks that the signature covers the message and every
// attachment, directly or through the hash chain.
func (j *judge) references() {
	c := j.c
	parts := make(map[string]covered)
	var errs []error
	chained := false
	for _, ref := range j.sig.References() {
		alg, ok := algorithmByURI(ref.DigestMethod)
		switch n, isAttachment := attachmentNumber(ref.URI, "/attachment"); {
		case !ok:
			errs = append(errs, fmt.Errorf("%s has the digest algorithm %.80q", ref.URI, ref.DigestMethod))
		case ref.URI == xades.URIChainResult && !chained && c.SigChainResult != nil:
			chained = true
			j.check(CheckDigest+entrySigChainResult, checkReference(ref, c.SigChainResult), "as signed")
		case ref.URI == xades.URIMessage, isAttachment && n <= len(c.Attachments) && c.Attachments[n-1].Open != nil:
			if _, twice := parts[ref.URI]; twice {
				errs = append(errs, fmt.Errorf("%s is referenced twice", ref.URI))
			}
			parts[ref.URI] = covered{alg, ref.Digest}
		default:
			errs = append(errs, fmt.Errorf("it refers to %.100q, which is not there", ref.URI))
		}
	}
	var chainErr error
	if chained {
		chainErr = j.hashChain(parts)
	} else if c.SigChainResult != nil {
		errs = append(errs, errors.New("it does not refer to the hash chain result"))
	}
	for _, name := range c.partNames() {
		switch _, ok := parts["/"+name]; {
		case ok:
		case !chained:
			errs = append(errs, fmt.Errorf("it does not cover %s", name))
		case chainErr == nil:
			chainErr = fmt.Errorf("%w: %s", ErrUnusedInputs, name)
		}
	}
	if chained {
		j.check(CheckHashChain, chainErr, "leads from the message to the signature")
	}
	for _, err := range errs {
		j.check(CheckReferences, err, "")
	}
	if len(errs) == 0 {
		j.check(CheckReferences, nil, "to what the container holds")
	}
	j.digests(parts)
}

// partNames lists the parts of the message that the container holds.
func (c *Container) partNames() []string {
	names := []string{entryMessage}
	for i, a := range c.Attachments {
		if a.Open != nil {
			names = append(names, attachmentName(i))
		}
	}
	return names
}

func attachmentName(i int) string { return entryAttachment + strconv.Itoa(i+1) }

// hashChain computes the chain from the digests it states itself and adds
// them to parts, where they are compared with what the container holds.
func (j *judge) hashChain(parts map[string]covered) error {
	result, err := readResult(j.c.SigChainResult)
	if err != nil {
		return err
	}
	chain := new(hashChain)
	if !scanChain(j.c.SigChain, chain) {
		if err := readChain(j.c.SigChain, chain); err != nil {
			return err
		}
		return fmt.Errorf("%w: not in X-Road's form", ErrMalformedHashChain)
	}
	var known []Digest
	var names []string
	for i := range chain.values {
		v := &chain.values[i]
		uri := string(v.uri)
		if v.kind != dataRef || j.absent(uri) {
			continue
		}
		if uri != xades.URIMessage && !strings.HasPrefix(uri, "/attachment") {
			return fmt.Errorf("%w: there is no part %.80q", ErrHashChainRef, uri)
		}
		if d, ok := parts[uri]; ok && (d.alg != v.alg || !bytes.Equal(d.digest, v.sum())) {
			return fmt.Errorf("%w: %s is referenced with two digests", ErrHashChainRef, uri)
		}
		parts[uri] = covered{v.alg, v.sum()}
		if v.alg == algSHA512 && !slices.Contains(names, uri) {
			known, names = append(known, v.digest), append(names, uri)
		}
	}
	return chain.verify(result, nameSigChain, chainParts{
		n: len(names),
		find: func(uri []byte) (int, *Digest) {
			i := slices.Index(names, string(uri))
			if i < 0 {
				return -1, nil
			}
			return i, &known[i]
		},
		name: func(i int) string { return names[i] },
		absent: func(uri string, a algorithm, digest []byte) error {
			if !j.absent(uri) {
				return fmt.Errorf("%w: %s by %s", ErrHashChainRef, uri, a.uri())
			}
			j.Unverified = append(j.Unverified, PartDigest{uri[1:], a.uri(), hex.EncodeToString(digest)})
			return nil
		},
	})
}

// absent reports whether uri names an attachment the container does not hold.
func (j *judge) absent(uri string) bool {
	n, ok := attachmentNumber(uri, "/attachment")
	return ok && (n > len(j.c.Attachments) || j.c.Attachments[n-1].Open == nil)
}

// digests compares the parts in the container with what is signed.
func (j *judge) digests(parts map[string]covered) {
	if p, ok := parts[xades.URIMessage]; ok {
		var d Digest
		n := p.alg.sum(j.c.Message, &d)
		j.digest(entryMessage, p, d[:n])
	}
	for i, a := range j.c.Attachments {
		p, ok := parts["/"+attachmentName(i)]
		if !ok || a.Open == nil {
			continue
		}
		h := p.alg.new()
		err := copyAttachment(h, a)
		if err != nil {
			j.check(CheckDigest+attachmentName(i), err, "")
			continue
		}
		j.digest(attachmentName(i), p, h.Sum(nil))
	}
}

func copyAttachment(w io.Writer, a Attachment) error {
	r, err := a.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, r.Close())
}

func (j *judge) digest(name string, p covered, computed []byte) {
	var err error
	if !bytes.Equal(p.digest, computed) {
		err = fmt.Errorf("it is not what was signed: its digest is %s, signed is %s",
			base64.StdEncoding.EncodeToString(computed), base64.StdEncoding.EncodeToString(p.digest))
		if name == entryMessage && mayBeWithheld(j.c.Message) {
			err = fmt.Errorf("%w; it looks as a log leaves it that keeps no bodies by policy (Kontor: message_log.bodies, X-Road: message-body-logging): "+
				"if so, what was withheld cannot be proven with this container; ask the other party for its own. If not, it was changed", err)
		}
	}
	j.check(CheckDigest+name, err, "as signed")
}

// mayBeWithheld reports whether a message that is not what was signed has the
// form in which logs keep messages without their bodies: nothing, a REST head
// with x-road- headers alone, or a SOAP envelope with an empty body (X-Road:
// Security Server User Guide, message-body-logging).
func mayBeWithheld(message []byte) bool {
	text := strings.TrimSpace(string(message))
	if strings.HasPrefix(strings.TrimPrefix(text, "\ufeff"), "<") {
		return emptyBody.MatchString(text)
	}
	lines := strings.Split(text, "\n")
	return text == "" || !slices.ContainsFunc(lines[min(2, len(lines)):], func(line string) bool {
		return !strings.HasPrefix(strings.ToLower(line), "x-road-")
	})
}

var emptyBody = regexp.MustCompile(`<(?:[\w.-]+:)?Body(?:\s[^<>]*)?(?:/>|>\s*</)`)

// timestamp checks the time-stamp and sets the instant for which everything
// else is judged.
func (j *judge) timestamp() {
	c := j.c
	j.Judged = j.Signed // for want of better
	token, stamped, embedded := c.Timestamp, j.sig.Value(), j.sig.Timestamps()
	if c.TSChainResult != nil {
		stamped = c.TSChainResult
		j.check(CheckTSChain, j.timestampChain(), "leads from the signature to the time-stamp")
	} else {
		// Nothing but the signature value is time-stamped, so the rest
		// of the document must leave no choice.
		j.check(CheckSignature, checkForm(c.Signatures), "in X-Road's form")
		if token == nil && len(embedded) > 0 {
			token, embedded = embedded[0], embedded[1:]
		}
		if len(embedded) > 0 {
			j.check(CheckTSImprint, errors.New("there are several time-stamps"), "")
			return
		}
	}
	if token == nil {
		j.check(CheckTSImprint, errors.New("there is no time-stamp"), "")
		return
	}
	t, err := tsa.Verify(token, stamped, j.trust.TSACertificates())
	if errors.Is(err, tsa.ErrImprint) {
		j.check(CheckTSImprint, err, "")
		return
	}
	if err == nil {
		err = checkToken(token, t, j.trust.TSACertificates())
	}
	if !j.check(CheckTSA, err, "%s", describeSigner(t)) {
		return
	}
	j.check(CheckTSImprint, nil, "stamped at %s", t.Time.UTC().Format(time.RFC3339))
	j.Stamped, j.Judged = t.Time, t.Time
	j.TSA = t.Signer.Subject.String()
}

func describeSigner(t *tsa.Token) string {
	if t == nil {
		return ""
	}
	return t.Signer.Subject.String()
}

func (j *judge) timestampChain() error {
	result, err := readResult(j.c.TSChainResult)
	if err != nil {
		return err
	}
	chain := new(hashChain)
	if !scanChain(j.c.TSChain, chain) {
		if err := readChain(j.c.TSChain, chain); err != nil {
			return err
		}
		return fmt.Errorf("%w: not in X-Road's form", ErrMalformedHashChain)
	}
	d := sha512.Sum512(j.c.Signatures)
	return chain.verify(result, nameTSChain, chainParts{
		n: 1,
		find: func(uri []byte) (int, *Digest) {
			if string(uri) == uriSignatures {
				return 0, &d
			}
			return -1, nil
		},
		name: func(int) string { return uriSignatures },
	})
}

// certificate judges the signing certificate at the time of the time-stamp.
func (j *judge) certificate() {
	cert := j.sig.Certificate()
	if !pki.IsSignCert(cert) {
		j.check(CheckCertificate, errors.New("its key usage is not nonRepudiation"), "")
	}
	if j.Sender.IsZero() {
		j.check(CheckCertificate, errors.New("the sender is not known"), "")
		return
	}
	tc := newTrustCache(j.trust)
	chain, err := tc.chain(j.sig, j.Sender.Instance(), j.trust, j.Judged)
	if err != nil {
		j.check(CheckChain, err, "")
		return
	}
	j.Authority = chain.Anchor.Name
	switch {
	case chain.memberErr != nil:
		err = chain.memberErr
	case chain.member != j.Sender.Member():
		j.Member = chain.member
		err = fmt.Errorf("it belongs to %s, not to the sender %s", chain.member, j.Sender.Member())
	default:
		j.Member = chain.member
	}
	j.check(CheckCertificate, err, "belongs to %s", chain.member)
	j.check(CheckChain, nil, "issued under %s", chain.Anchor.Name)
	resp, err := tc.status(chain, j.sig, j.trust, j.Judged, j.Judged)
	if err == nil && j.c.TSChainResult == nil {
		err = j.checkUnsigned(chain)
	}
	j.check(CheckOCSP, err, "good at %s", describeTime(resp))
}

func describeTime(r *ocsp.Response) string {
	if r == nil {
		return ""
	}
	return r.ThisUpdate.UTC().Format(time.RFC3339)
}
