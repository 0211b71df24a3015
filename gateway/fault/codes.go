// SPDX-License-Identifier: Apache-2.0

package fault

//go:generate go run ./gen

// Code is what went wrong, in X-Road's words: lower snake case, without the
// origin in front. [Code.In] puts an infix before it.
type Code string

// The codes. Their meaning and remedy stand in the table below and, for
// people, in docs/faults.md, which is generated from it.
const (
	AccessDenied                   Code = "access_denied"
	ServiceDisabled                Code = "service_disabled"
	ServiceFailed                  Code = "service_failed"
	ServiceMalformedURL            Code = "service_malformed_url"
	ServiceMissingURL              Code = "service_missing_url"
	ServiceType                    Code = "service_type"
	ServiceUnavailable             Code = "service_unavailable"
	UnknownMember                  Code = "unknown_member"
	UnknownService                 Code = "unknown_service"
	MaintenanceMode                Code = "maintenance_mode"
	InvalidSecurityServer          Code = "invalid_security_server"
	InvalidClientIdentifier        Code = "invalid_client_identifier"
	ClientProxyVersionNotSupported Code = "client_proxy_version_not_supported"
	SSLAuthenticationFailed        Code = "ssl_authentication_failed"

	BadRequest             Code = "bad_request"
	NotFound               Code = "not_found"
	DuplicateHeaderField   Code = "duplicate_header_field"
	InconsistentHeaders    Code = "inconsistent_headers"
	InconsistentResponse   Code = "inconsistent_response"
	InvalidBody            Code = "invalid_body"
	InvalidContentType     Code = "invalid_content_type"
	InvalidHTTPMethod      Code = "invalid_http_method"
	InvalidMessage         Code = "invalid_message"
	InvalidProtocolVersion Code = "invalid_protocol_version"
	InvalidRequest         Code = "invalid_request"
	InvalidSOAP            Code = "invalid_soap"
	InvalidSOAPAction      Code = "invalid_soap_action"
	InvalidXML             Code = "invalid_xml"
	MIMEParsingFailed      Code = "mime_parsing_failed"
	MissingBody            Code = "missing_body"
	MissingHeader          Code = "missing_header"
	MissingHeaderField     Code = "missing_header_field"
	MissingREST            Code = "missing_rest"
	MissingSignature       Code = "missing_signature"
	MissingSOAP            Code = "missing_soap"

	SignatureVerification   Code = "signature_verification"
	CannotCreateCertPath    Code = "cannot_create_cert_path"
	CannotCreateSignature   Code = "cannot_create_signature"
	CannotSign              Code = "cannot_sign"
	CertValidation          Code = "cert_validation"
	HashChainUnusedInputs   Code = "hashchain_unused_inputs"
	IncorrectCertificate    Code = "incorrect_certificate"
	IncorrectValidationInfo Code = "incorrect_validation_info"
	InvalidCertPath         Code = "invalid_cert_path"
	InvalidHashChain        Code = "invalid_hash_chain"
	InvalidHashChainRef     Code = "invalid_hash_chain_ref"
	InvalidReference        Code = "invalid_reference"
	InvalidSignatureValue   Code = "invalid_signature_value"
	MalformedHashChain      Code = "malformed_hash_chain"
	MalformedSignature      Code = "malformed_signature"

	KeyNotFound              Code = "key_not_found"
	TokenNotActive           Code = "token_not_active"
	TokenNotAvailable        Code = "token_not_available"
	TokenNotInitialized      Code = "token_not_initialized"
	UnsupportedSignAlgorithm Code = "unsupported_sign_algorithm"
	HSMNonOperational        Code = "hsm_non_operational"

	LoggingFailed              Code = "logging_failed"
	TimestampingFailed         Code = "timestamping_failed"
	MlogNoTimestampingProvider Code = "mlog.no_timestamping_provider_found"
	MlogTimestamperFailed      Code = "timestamper_failed"
	MlogLogManagerUnavailable  Code = "mlog.log_manager_unavailable"
	MlogRecordNotFound         Code = "mlog.message_log_record_not_found"
	MlogDigestFailed           Code = "mlog.calculating_message_digest_failed"
	MlogTSAConnectionFailed    Code = "mlog.timestamp_provider_connection_failed"
	MlogTSARefused             Code = "mlog.timestamp_non_granted_response"
	MlogTSAResponseInvalid     Code = "mlog.timestamp_response_validation_failed"
	MlogTSASignerInvalid       Code = "mlog.timestamp_signer_verification_failed"
	MlogTSACertificateNotFound Code = "mlog.tsp_certificate_not_found"

	CryptographyError  Code = "cryptography_error"
	DatabaseError      Code = "database_error"
	GlobalConfOutdated Code = "global_conf_outdated"
	HTTPError          Code = "http_error"
	InternalError      Code = "internal_error"
	IOError            Code = "io_error"
	NetworkError       Code = "network_error"
	UnknownHost        Code = "unknown_host"

	ASiCInvalidContainer        Code = "asic_invalid_container"
	ASiCHashChainNotFound       Code = "asic_hash_chain_not_found"
	ASiCHashChainResultNotFound Code = "asic_hash_chain_result_not_found"
	ASiCInvalidMIMEType         Code = "asic_invalid_mime_type"
	ASiCManifestNotFound        Code = "asic_manifest_not_found"
	ASiCMessageNotFound         Code = "asic_message_not_found"
	ASiCMIMETypeNotFound        Code = "asic_mime_type_not_found"
	ASiCSignatureNotFound       Code = "asic_signature_not_found"
	ASiCTimestampNotFound       Code = "asic_timestamp_not_found"
)

// Entry describes one code.
type Entry struct {
	Group   string // heading under which people find it
	Code    Code
	Meaning string // when it is given
	Remedy  string // what to do next, and who
}

// The groups, in the order of docs/faults.md.
const (
	groupAccess    = "Access and addressing"
	groupMessage   = "Message form"
	groupSignature = "Signatures and certificates"
	groupKeys      = "Keys and tokens"
	groupLog       = "Message log and time-stamping"
	groupOperation = "Operation"
	groupASiC      = "Containers"
)

// Table returns every code, its meaning and its remedy, group by group. The
// slice is the caller's.
func Table() []Entry {
	return append([]Entry(nil), table...)
}

// table is the one list of codes. It is never written to.
var table = []Entry{
	{groupAccess, AccessDenied,
		"The client has no right to use this service or endpoint.",
		"ask the provider to grant the client access to the service; the operator of the provider's security server adds the right"},
	{groupAccess, InvalidClientIdentifier,
		"The request does not say which client sends it.",
		"send the header X-Road-Client: INSTANCE/CLASS/MEMBER/SUBSYSTEM"},
	{groupAccess, UnknownMember,
		"The client is not registered at this security server, or no security server offers the provider's service.",
		"check the identifier; if it is right, register the client at the security server that it uses"},
	{groupAccess, UnknownService,
		"The provider's security server has no such service.",
		"check the service code; the operator of the provider's security server adds the service"},
	{groupAccess, ServiceDisabled,
		"The provider has switched the service off.",
		"ask the provider when the service will be back; its notice stands in the message"},
	{groupAccess, ServiceType,
		"A REST request was sent to a SOAP service, or the other way round.",
		"call the service with the protocol that its description names"},
	{groupAccess, ServiceMissingURL,
		"The service has no address.",
		"set the address of the service in the configuration of the provider's security server"},
	{groupAccess, ServiceMalformedURL,
		"The address of the service is not a URL.",
		"correct the address of the service in the configuration of the provider's security server"},
	{groupAccess, ServiceFailed,
		"As an infix: the service or the peer's message caused the fault. Alone: the service did not answer as it should.",
		"read the rest of the code; then check the service behind the provider's security server"},
	{groupAccess, ServiceUnavailable,
		"The security server is at its limit of exchanges at once, or the client at its share of them. This code is Kontor's own.",
		"try again later; if it happens often, raise the limit or add a security server"},
	{groupAccess, InvalidSecurityServer,
		"The security server named in the request is unknown or does not serve the provider.",
		"leave out X-Road-Security-Server, or name a server at which the provider is registered"},
	{groupAccess, MaintenanceMode,
		"All security servers of the provider are in maintenance.",
		"try again later; the registry's notice stands in the message"},
	{groupAccess, ClientProxyVersionNotSupported,
		"The consumer's security server is older than the provider allows.",
		"update the consumer's security server, or lower the minimum version at the provider's"},
	{groupAccess, SSLAuthenticationFailed,
		"A TLS certificate is missing, wrong, expired, revoked or not registered; as an infix the rest of the code says which.",
		"between client and security server, check the client's certificate and connection type; between security servers, check both authentication certificates, their registration and their OCSP responses"},

	{groupMessage, BadRequest,
		"A parameter of a document request is missing or contradicts another.",
		"correct the parameters named in the message"},
	{groupMessage, NotFound,
		"No such document or record.",
		"check the parameters; the record may have been archived"},
	{groupMessage, DuplicateHeaderField,
		"A SOAP header, or a part of an identifier in it, occurs twice.",
		"send each X-Road header once"},
	{groupMessage, InconsistentHeaders,
		"The SOAP body does not belong to the service named in the header, or headers of the answer differ from the request's.",
		"name the body's element after the service code; let the service repeat the request's headers"},
	{groupMessage, InconsistentResponse,
		"The answer does not belong to the request: an identifier or the request hash differs.",
		"try again; if it persists, ask the operator of the provider's security server"},
	{groupMessage, InvalidBody,
		"The SOAP body does not have exactly one element.",
		"send one element in the SOAP body"},
	{groupMessage, InvalidContentType,
		"The content type, of the message or of a part, is missing or not the one expected there.",
		"correct the Content-Type"},
	{groupMessage, InvalidHTTPMethod,
		"The HTTP method is not allowed here.",
		"use POST for SOAP and between security servers"},
	{groupMessage, InvalidMessage,
		"The message has parts where none may be, or lacks the fault or the content expected.",
		"check the software that made the message"},
	{groupMessage, InvalidProtocolVersion,
		"The protocol version of the SOAP message is not 4.",
		"set protocolVersion to 4.0"},
	{groupMessage, InvalidRequest,
		"A parameter of a metadata request is missing, or the request has no content type.",
		"add what the message names"},
	{groupMessage, InvalidSOAP,
		"The message is not a SOAP 1.1 envelope.",
		"check the software that made the message"},
	{groupMessage, InvalidSOAPAction,
		"The SOAPAction header is not a quoted URI.",
		"send SOAPAction: \"\""},
	{groupMessage, InvalidXML,
		"The XML is not well formed, has a document type declaration, or names an unknown identifier type.",
		"check the software that made the message"},
	{groupMessage, MIMEParsingFailed,
		"The multipart message is malformed or was cut off.",
		"try again; if it persists, look for a proxy that changes messages on the way"},
	{groupMessage, MissingBody,
		"The SOAP message has no body.",
		"check the software that made the message"},
	{groupMessage, MissingHeader,
		"The SOAP message has no header.",
		"add the X-Road headers"},
	{groupMessage, MissingHeaderField,
		"A mandatory X-Road header is missing.",
		"add the header named in the message"},
	{groupMessage, MissingREST,
		"The message between security servers has no REST part.",
		"check the software of the sending security server"},
	{groupMessage, MissingSOAP,
		"The message between security servers has no SOAP part.",
		"check the software of the sending security server"},
	{groupMessage, MissingSignature,
		"The message between security servers ended before its signature.",
		"try again; the log of the sending security server says why it gave up"},

	{groupSignature, SignatureVerification,
		"As an infix: the signature of a message was not accepted; the rest of the code says why.",
		"see the rest of the code"},
	{groupSignature, CannotCreateCertPath,
		"No approved certification authority is found for a certificate.",
		"check that the certification authority is listed in the global configuration of the certificate's instance"},
	{groupSignature, CannotCreateSignature,
		"This security server cannot sign for the member.",
		"check that the member has an active, registered signing certificate with a fresh OCSP response, and that the token is unlocked"},
	{groupSignature, CannotSign,
		"The token refused to sign.",
		"check the token and its key"},
	{groupSignature, CertValidation,
		"A certificate is revoked, unknown to its authority, or has no OCSP response.",
		"renew the certificate if it was revoked; otherwise check that the security server reaches the authority's OCSP responder"},
	{groupSignature, HashChainUnusedInputs,
		"A part of the message is not covered by its batch signature.",
		"the message must not be trusted; ask the operator of the sending security server"},
	{groupSignature, IncorrectCertificate,
		"A certificate cannot be read or does not belong to the sender.",
		"check which signing certificate the sender uses"},
	{groupSignature, IncorrectValidationInfo,
		"An OCSP response is too old, for another certificate, or not from an authorised responder.",
		"check the clocks and that the security server which sent it reaches its OCSP responder"},
	{groupSignature, InvalidCertPath,
		"The certificate chain does not verify: expired, not yet valid, or wrongly signed.",
		"renew the certificate or correct the chain"},
	{groupSignature, InvalidHashChain,
		"The hash chain does not lead to the signed result.",
		"the message must not be trusted; ask the operator of the sending security server"},
	{groupSignature, InvalidHashChainRef,
		"A part of the message differs from the digest in its hash chain.",
		"the message must not be trusted; ask the operator of the sending security server"},
	{groupSignature, InvalidReference,
		"The signature refers to something that is not in the message.",
		"check the software of the sending security server"},
	{groupSignature, InvalidSignatureValue,
		"The signature, or the digest of something it covers, is wrong.",
		"the message must not be trusted; ask the operator of the sending security server"},
	{groupSignature, MalformedHashChain,
		"The hash chain is not well formed or lacks a step.",
		"check the software of the sending security server"},
	{groupSignature, MalformedSignature,
		"The signature document lacks something or is not in X-Road's profile.",
		"check the software of the sending security server and the usage of its signing certificate"},

	{groupKeys, KeyNotFound,
		"The token has no such key.",
		"generate a key, or correct the configuration that names it"},
	{groupKeys, TokenNotActive,
		"The token is locked.",
		"unlock the token with its PIN"},
	{groupKeys, TokenNotAvailable,
		"The token cannot be reached.",
		"check the token's directory or device"},
	{groupKeys, TokenNotInitialized,
		"The token has not been set up.",
		"initialise the token"},
	{groupKeys, UnsupportedSignAlgorithm,
		"The key cannot make the kind of signature asked for.",
		"use an EC P-256 or RSA key of at least 2048 bits"},
	{groupKeys, HSMNonOperational,
		"The hardware security module does not work.",
		"check the module and its connection"},

	{groupLog, LoggingFailed,
		"The message could not be recorded, and so was not sent on. As an infix the rest of the code says why.",
		"the operator of the security server named by the code checks disk space and the log"},
	{groupLog, TimestampingFailed,
		"Time-stamping has failed for longer than allowed, so new messages are refused.",
		"the operator of the security server named by the code checks that it reaches an approved time-stamping service"},
	{groupLog, MlogNoTimestampingProvider,
		"No time-stamping service is approved in the global configuration, or none is configured.",
		"approve a time-stamping service in the registry and configure it"},
	{groupLog, MlogTimestamperFailed,
		"Time-stamping failed.",
		"see the log of the security server"},
	{groupLog, MlogLogManagerUnavailable,
		"The message log does not answer.",
		"see the log of the security server"},
	{groupLog, MlogRecordNotFound,
		"The message log has no such record.",
		"check the message identifier; the record may have been archived"},
	{groupLog, MlogDigestFailed,
		"The digest of a message could not be computed.",
		"see the log of the security server"},
	{groupLog, MlogTSAConnectionFailed,
		"The time-stamping service cannot be reached.",
		"check the network and the address of the service"},
	{groupLog, MlogTSARefused,
		"The time-stamping service refused the request.",
		"ask the operator of the time-stamping service"},
	{groupLog, MlogTSAResponseInvalid,
		"The answer of the time-stamping service does not fit the request.",
		"ask the operator of the time-stamping service"},
	{groupLog, MlogTSASignerInvalid,
		"The signature of a time-stamp is wrong.",
		"compare the service's certificate with the one in the global configuration"},
	{groupLog, MlogTSACertificateNotFound,
		"The certificate that signed a time-stamp is not approved.",
		"compare the service's certificate with the one in the global configuration"},

	{groupOperation, CryptographyError,
		"A cryptographic operation failed unexpectedly.",
		"the operator finds the cause in the log under the identifier in detail"},
	{groupOperation, DatabaseError,
		"The configuration or the log could not be read or written.",
		"the operator checks disk space and finds the cause in the log under the identifier in detail"},
	{groupOperation, GlobalConfOutdated,
		"The global configuration of this security server has expired.",
		"check that the security server reaches the registry, and that the registry still publishes"},
	{groupOperation, HTTPError,
		"A security server or a service answered with an unexpected status or without content.",
		"check the service, or what stands between the two security servers"},
	{groupOperation, InternalError,
		"Something unexpected happened, or the request could not be understood.",
		"correct the request if the message says how; otherwise the operator finds the cause in the log under the identifier in detail"},
	{groupOperation, IOError,
		"A transfer broke off or took too long.",
		"try again; then check the network between the hops, and the log of the security server"},
	{groupOperation, NetworkError,
		"The next hop cannot be reached.",
		"check that it runs, its address and the firewalls in between"},
	{groupOperation, UnknownHost,
		"The name of the next hop does not resolve.",
		"correct the host name, or the name service"},

	{groupASiC, ASiCInvalidContainer,
		"The file is not an ASiC container.",
		"download the container again"},
	{groupASiC, ASiCHashChainNotFound,
		"The container has a hash chain result but no hash chain.",
		"download the container again"},
	{groupASiC, ASiCHashChainResultNotFound,
		"The container has a hash chain but no result.",
		"download the container again"},
	{groupASiC, ASiCInvalidMIMEType,
		"The container is of another type than ASiC-E.",
		"download the container again"},
	{groupASiC, ASiCManifestNotFound,
		"The container has no manifest.",
		"download the container again"},
	{groupASiC, ASiCMessageNotFound,
		"The container has no message.",
		"download the container again"},
	{groupASiC, ASiCMIMETypeNotFound,
		"The container does not say its type.",
		"download the container again"},
	{groupASiC, ASiCSignatureNotFound,
		"The container has no signature.",
		"download the container again"},
	{groupASiC, ASiCTimestampNotFound,
		"The container has no time-stamp.",
		"wait until the message has been time-stamped, then download it again"},
}
