// SPDX-License-Identifier: Apache-2.0

package xades

// Namespaces.
const (
	nsASiC    = "http://uri.etsi.org/02918/v1.2.1#"
	nsASiCOld = "http://uri.etsi.org/02918/v1.1.1#" // on old X-Road documents
	nsDS      = "http://www.w3.org/2000/09/xmldsig#"
	nsXAdES   = "http://uri.etsi.org/01903/v1.3.2#"
)

// Algorithms and types.
const (
	c14nInclusive   = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	c14nInclusive11 = "http://www.w3.org/2006/12/xml-c14n11"
	c14nExclusive   = "http://www.w3.org/2001/10/xml-exc-c14n#"
	typeProperties  = "http://uri.etsi.org/01903#SignedProperties"
)

// The pieces of our own form. Sign joins them, scan demands them; between two
// pieces stands one value. Elements never close themselves and attributes stand
// in canonical order, because what is between the outermost tags of SignedInfo
// and SignedProperties must be its own canonical form (Canonical XML 1.0). The
// outermost tags gain the namespaces in scope there: canonInfo, canonProps.
const (
	namespaces = ` xmlns:asic="` + nsASiC + `" xmlns:ds="` + nsDS + `" xmlns:xades="` + nsXAdES +
		`" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"`
	sha512Method = `<ds:DigestMethod Algorithm="` + DigestSHA512 + `"></ds:DigestMethod><ds:DigestValue>`

	canonInfo  = `<ds:SignedInfo` + namespaces + `>`
	canonProps = `<xades:SignedProperties` + namespaces + ` Id="signed-properties">`

	litHead = `<?xml version="1.0" encoding="UTF-8" standalone="no"?><asic:XAdESSignatures` + namespaces +
		`><ds:Signature Id="signature"><ds:SignedInfo>`
	litMethod = `<ds:CanonicalizationMethod Algorithm="` + c14nInclusive +
		`"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="`
	litURI          = `"></ds:SignatureMethod><ds:Reference Id="signature-reference-0" URI="`
	litDigestMethod = `"><ds:DigestMethod Algorithm="`
	litDigest       = `"></ds:DigestMethod><ds:DigestValue>`
	litPropsDigest  = `</ds:DigestValue></ds:Reference><ds:Reference Id="signature-reference-1" Type="` + typeProperties +
		`" URI="#signed-properties">` + sha512Method
	litInfoEnd = `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
	litValue   = `<ds:SignatureValue Id="signature-value">`
	litCert    = `</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>`
	litObject  = `</ds:X509Certificate></ds:X509Data></ds:KeyInfo><ds:Object>` +
		`<xades:QualifyingProperties Target="#signature"><xades:SignedProperties Id="signed-properties">`
	litTime       = `<xades:SignedSignatureProperties><xades:SigningTime>`
	litSigner     = `</xades:SigningTime><xades:SigningCertificate><xades:Cert>`
	litCertDigest = `<xades:CertDigest>` + sha512Method
	litIssuer     = `</ds:DigestValue></xades:CertDigest><xades:IssuerSerial><ds:X509IssuerName>`
	litSerial     = `</ds:X509IssuerName><ds:X509SerialNumber>`
	litSerialEnd  = `</ds:X509SerialNumber></xades:IssuerSerial></xades:Cert>`
	litMimeType   = `</xades:SigningCertificate>` + policy + `</xades:SignedSignatureProperties>` +
		`<xades:SignedDataObjectProperties><xades:DataObjectFormat ObjectReference="#signature-reference-0"><xades:MimeType>`
	litPropsEnd = `</xades:MimeType></xades:DataObjectFormat></xades:SignedDataObjectProperties></xades:SignedProperties>`
	litUnsigned = `<xades:UnsignedProperties><xades:UnsignedSignatureProperties>`

	litTimestamp    = `SignatureTimeStamp>` // after "<" or "</" and the prefix
	litToken        = `EncapsulatedTimeStamp>`
	litStamp        = `<xades:` + litTimestamp + `<xades:` + litToken
	litStampEnd     = `</xades:` + litToken + `</xades:` + litTimestamp
	litCertRefs     = `<xades:CompleteCertificateRefs Id="complete-certificate-refs"><xades:CertRefs>`
	litCertRef      = `<xades:Cert URI="#encapsulated-cert-`
	litCertRefsEnd  = `</xades:CertRefs></xades:CompleteCertificateRefs><xades:CertificateValues>`
	litCertValue    = `<xades:EncapsulatedX509Certificate Id="encapsulated-cert-`
	litCertValueEnd = `</xades:EncapsulatedX509Certificate>`
	litCertsEnd     = `</xades:CertificateValues>`
	litOCSPs        = `<xades:RevocationValues><xades:OCSPValues>`
	litOCSP         = `<xades:EncapsulatedOCSPValue Id="ocsp-response-`
	litOCSPEnd      = `</xades:EncapsulatedOCSPValue>`
	litTail         = `</xades:OCSPValues></xades:RevocationValues></xades:UnsignedSignatureProperties></xades:UnsignedProperties>` +
		`</xades:QualifyingProperties></ds:Object></ds:Signature></asic:XAdESSignatures>`

	// policy names the signature policy under which X-Road signs. Its hash is
	// that of the published document, a constant.
	policy = `<xades:SignaturePolicyIdentifier><xades:SignaturePolicyId><xades:SigPolicyId>` +
		`<xades:Identifier Qualifier="OIDAsURN">urn:oid:1.3.6.1.4.1.3516.16.2</xades:Identifier>` +
		`<xades:Description>Profile for High Performance Digital Signatures (version 1.2)</xades:Description>` +
		`</xades:SigPolicyId><xades:SigPolicyHash>` + sha512Method +
		`BuO0EDNfkxSVlUbxCzmQPzX1AUF1/xx9ytWHk3/6SAOePxQiniEfDYk+90QeYb3lWpV3Izhuz9fKaYyE+lTcXw==` +
		`</ds:DigestValue></xades:SigPolicyHash><xades:SigPolicyQualifiers><xades:SigPolicyQualifier>` +
		`<xades:SPURI>https://repo.cyber.ee/dsig-profile-1.2.pdf</xades:SPURI>` +
		`</xades:SigPolicyQualifier></xades:SigPolicyQualifiers></xades:SignaturePolicyId></xades:SignaturePolicyIdentifier>`
)

const (
	timeLayout = "2006-01-02T15:04:05.000Z"
	digest512  = 88 // base64 length of a SHA-512 digest
)

// mimeType returns the MimeType that the signed properties give the data at uri.
func mimeType(uri string) string {
	switch uri {
	case URIMessage: // also when it is a REST message's head
		return "text/xml"
	case URIChainResult:
		return "application/hash-chain-result"
	}
	return "application/octet-stream"
}

// plainURI reports whether uri is an absolute path that means the same with and
// without XML or percent decoding: what our own form may refer to.
func plainURI[T string | []byte](uri T) bool {
	if len(uri) < 2 || len(uri) > 256 || uri[0] != '/' {
		return false
	}
	for i := range len(uri) {
		switch c := uri[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
