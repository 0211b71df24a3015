// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"kontor/registry/id"
)

// The values of Record.ServerType.
const (
	Client   = "Client"
	Producer = "Producer"
)

// Number is a count, a size or a time that may be absent, which its zero value
// is.
type Number uint64

// Num returns the Number n. A negative one is absent.
func Num(n int64) Number {
	if n < 0 {
		return 0
	}
	return Number(n) + 1
}

// Millis returns t in milliseconds since 1970; absent if t is zero.
func Millis(t time.Time) Number {
	if t.IsZero() {
		return 0
	}
	return Num(t.UnixMilli())
}

// Get returns the value, and whether there is one.
func (n Number) Get() (int64, bool) { return int64(n - 1), n != 0 }

// Record is what is kept of one exchange on one side: X-Road's operational data
// (X-Road: Operational Monitoring Protocol, annex B). Empty texts and absent
// numbers are not shown. It holds no body and no query.
type Record struct {
	Stored     Number // s since 1970, set by the Store
	InternalIP string // set by the Store
	ServerType string // Client or Producer

	RequestIn, RequestOut, ResponseIn, ResponseOut Number // ms since 1970

	Client          id.Client
	Service         id.Service
	RESTMethod      string
	RESTPath        string // pattern of the endpoint, set by the Store; of Producer only
	PartyClass      string
	PartyCode       string
	MessageID       string
	UserID          string
	Issue           string
	ProtocolVersion string
	ClientAddress   string // of the security servers
	ServiceAddress  string

	RequestSize, RequestMIMESize, RequestAttachments    Number // bytes, bytes, count
	ResponseSize, ResponseMIMESize, ResponseAttachments Number

	Succeeded   bool
	Status      Number // HTTP status of a REST service
	FaultCode   string
	FaultString string
	RequestID   string
	ServiceType string // WSDL, REST, OPENAPI3
	Version     string // of X-Road

	// Path is what the client asked for. It may hold personal data and is never
	// stored: the Store looks up which endpoint it belongs to.
	Path string
}

// Bounds of texts, in characters (X-Road: the same schema).
const (
	maxText  = 255
	maxFault = 2048
)

// row is a Record as it is stored: flat, in the order of fields.
type row struct {
	texts   [textCount]string
	numbers [numberCount]Number
}

type kind uint8

const (
	text kind = iota
	number
	boolean // a number, 0 or 1
)

// field is one of the fields of operational data.
type field struct {
	name string
	kind kind
	at   int // in row.texts or row.numbers
	// unique texts are not expected to occur again.
	unique bool
}

// Places in row.texts.
const (
	textInternalIP = iota
	textServerType
	textClientInstance
	textClientClass
	textClientMember
	textClientSubsystem
	textServiceInstance
	textServiceClass
	textServiceMember
	textServiceSubsystem
	textServiceCode
	textRESTMethod
	textRESTPath
	textServiceVersion
	textPartyClass
	textPartyCode
	textMessageID
	textUserID
	textIssue
	textProtocolVersion
	textClientAddress
	textServiceAddress
	textServiceType
	textFaultCode
	textFaultString
	textRequestID
	textVersion
	textCount
)

// Places in row.numbers.
const (
	numberStored = iota
	numberRequestIn
	numberRequestOut
	numberResponseIn
	numberResponseOut
	numberRequestSize
	numberRequestMIMESize
	numberRequestAttachments
	numberResponseSize
	numberResponseMIMESize
	numberResponseAttachments
	numberSucceeded
	numberStatus
	numberCount
)

const internalIP = "securityServerInternalIp"

// fields are all fields, in the order in which X-Road's specification lists
// them. A test compares them with its schema.
var fields = [...]field{
	{name: "monitoringDataTs", kind: number, at: numberStored},
	{name: internalIP, at: textInternalIP},
	{name: "securityServerType", at: textServerType},
	{name: "requestInTs", kind: number, at: numberRequestIn},
	{name: "requestOutTs", kind: number, at: numberRequestOut},
	{name: "responseInTs", kind: number, at: numberResponseIn},
	{name: "responseOutTs", kind: number, at: numberResponseOut},
	{name: "clientXRoadInstance", at: textClientInstance},
	{name: "clientMemberClass", at: textClientClass},
	{name: "clientMemberCode", at: textClientMember},
	{name: "clientSubsystemCode", at: textClientSubsystem},
	{name: "serviceXRoadInstance", at: textServiceInstance},
	{name: "serviceMemberClass", at: textServiceClass},
	{name: "serviceMemberCode", at: textServiceMember},
	{name: "serviceSubsystemCode", at: textServiceSubsystem},
	{name: "serviceCode", at: textServiceCode},
	{name: "restMethod", at: textRESTMethod},
	{name: "restPath", at: textRESTPath},
	{name: "serviceVersion", at: textServiceVersion},
	{name: "representedPartyClass", at: textPartyClass},
	{name: "representedPartyCode", at: textPartyCode},
	{name: "messageId", at: textMessageID, unique: true},
	{name: "messageUserId", at: textUserID},
	{name: "messageIssue", at: textIssue},
	{name: "messageProtocolVersion", at: textProtocolVersion},
	{name: "clientSecurityServerAddress", at: textClientAddress},
	{name: "serviceSecurityServerAddress", at: textServiceAddress},
	{name: "requestSize", kind: number, at: numberRequestSize},
	{name: "requestMimeSize", kind: number, at: numberRequestMIMESize},
	{name: "requestAttachmentCount", kind: number, at: numberRequestAttachments},
	{name: "responseSize", kind: number, at: numberResponseSize},
	{name: "responseMimeSize", kind: number, at: numberResponseMIMESize},
	{name: "responseAttachmentCount", kind: number, at: numberResponseAttachments},
	{name: "succeeded", kind: boolean, at: numberSucceeded},
	{name: "serviceType", at: textServiceType},
	{name: "faultCode", at: textFaultCode},
	{name: "faultString", at: textFaultString},
	{name: "statusCode", kind: number, at: numberStatus},
	{name: "xRequestId", at: textRequestID, unique: true},
	{name: "xRoadVersion", at: textVersion},
}

// row returns the record in the form in which it is stored.
func (r *Record) row() row {
	version, _ := r.Service.Version()
	client, owner := r.Client.Member(), r.Service.Owner().Member()
	succeeded := Num(0)
	if r.Succeeded {
		succeeded = Num(1)
	}
	w := row{
		texts: [textCount]string{
			textInternalIP: r.InternalIP, textServerType: r.ServerType,
			textClientInstance: client.Instance(), textClientClass: client.Class(), textClientMember: client.Code(), textClientSubsystem: r.Client.Subsystem(),
			textServiceInstance: owner.Instance(), textServiceClass: owner.Class(), textServiceMember: owner.Code(), textServiceSubsystem: r.Service.Owner().Subsystem(),
			textServiceCode: r.Service.Code(), textServiceVersion: version, textRESTMethod: r.RESTMethod, textRESTPath: r.RESTPath,
			textPartyClass: r.PartyClass, textPartyCode: r.PartyCode, textMessageID: r.MessageID, textUserID: r.UserID, textIssue: r.Issue,
			textProtocolVersion: r.ProtocolVersion, textClientAddress: r.ClientAddress, textServiceAddress: r.ServiceAddress,
			textServiceType: r.ServiceType, textFaultCode: r.FaultCode, textFaultString: r.FaultString, textRequestID: r.RequestID, textVersion: r.Version,
		},
		numbers: [numberCount]Number{
			r.Stored, r.RequestIn, r.RequestOut, r.ResponseIn, r.ResponseOut,
			r.RequestSize, r.RequestMIMESize, r.RequestAttachments, r.ResponseSize, r.ResponseMIMESize, r.ResponseAttachments, succeeded, r.Status,
		},
	}
	for i := range w.texts {
		most := maxText
		if i == textFaultString {
			most = maxFault
		}
		w.texts[i] = cut(w.texts[i], most)
	}
	return w
}

// cut shortens a text to at most n characters.
func cut(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// party is a member or a subsystem as it stands in a row.
type party [4]string

func partyOf(c id.Client) party {
	m := c.Member()
	return party{m.Instance(), m.Class(), m.Code(), c.Subsystem()}
}

func (w *row) client() party {
	return party(w.texts[textClientInstance : textClientSubsystem+1])
}

func (w *row) provider() party {
	return party(w.texts[textServiceInstance : textServiceSubsystem+1])
}

// appendJSON appends the fields at the given places in fields that have a value.
func (w *row) appendJSON(b []byte, places []int) []byte {
	b = append(b, '{')
	empty := len(b)
	for _, i := range places {
		f := &fields[i]
		switch f.kind {
		case text:
			s := w.texts[f.at]
			if s == "" {
				continue
			}
			b = appendName(b, f.name, empty)
			b = appendText(b, s)
		default:
			n, ok := w.numbers[f.at].Get()
			if !ok {
				continue
			}
			b = appendName(b, f.name, empty)
			if f.kind == boolean {
				b = strconv.AppendBool(b, n == 1)
			} else {
				b = strconv.AppendInt(b, n, 10)
			}
		}
	}
	return append(b, '}')
}

func appendName(b []byte, name string, empty int) []byte {
	if len(b) > empty {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always has a form
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
