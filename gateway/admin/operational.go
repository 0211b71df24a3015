// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kontor/gateway/opmonitor"
	"kontor/registry/guard"
)

// OperationalData is what the API needs of the operational data.
type OperationalData interface {
	Find(context.Context, opmonitor.Query) (*opmonitor.Result, error)
	Wake() // has written what waits
}

func (a *API) registerOperational() {
	register(a, operation{id: "find-operational-data", method: http.MethodGet, path: "/operational-data", summary: "Find operational data: a record of each exchange",
		description: "Fields are named as in X-Road's operational monitoring protocol. A record is there within a second after its exchange.",
		roles:       []string{RoleAuditor}}, a.operationalData)
}

// Exchange is a record of operational data. Times are in ms since 1970, but
// monitoringDataTs, which is in seconds; 0 and "" mean that there is none.
type Exchange struct {
	MonitoringDataTS             int64  `json:"monitoringDataTs,omitempty"`
	SecurityServerInternalIP     string `json:"securityServerInternalIp,omitempty"`
	SecurityServerType           string `json:"securityServerType,omitempty" enum:"Client,Producer"`
	RequestInTS                  int64  `json:"requestInTs,omitempty"`
	RequestOutTS                 int64  `json:"requestOutTs,omitempty"`
	ResponseInTS                 int64  `json:"responseInTs,omitempty"`
	ResponseOutTS                int64  `json:"responseOutTs,omitempty"`
	ClientXRoadInstance          string `json:"clientXRoadInstance,omitempty"`
	ClientMemberClass            string `json:"clientMemberClass,omitempty"`
	ClientMemberCode             string `json:"clientMemberCode,omitempty"`
	ClientSubsystemCode          string `json:"clientSubsystemCode,omitempty"`
	ServiceXRoadInstance         string `json:"serviceXRoadInstance,omitempty"`
	ServiceMemberClass           string `json:"serviceMemberClass,omitempty"`
	ServiceMemberCode            string `json:"serviceMemberCode,omitempty"`
	ServiceSubsystemCode         string `json:"serviceSubsystemCode,omitempty"`
	ServiceCode                  string `json:"serviceCode,omitempty"`
	ServiceVersion               string `json:"serviceVersion,omitempty"`
	ServiceType                  string `json:"serviceType,omitempty"`
	RESTMethod                   string `json:"restMethod,omitempty"`
	RESTPath                     string `json:"restPath,omitempty"`
	RepresentedPartyClass        string `json:"representedPartyClass,omitempty"`
	RepresentedPartyCode         string `json:"representedPartyCode,omitempty"`
	MessageID                    string `json:"messageId,omitempty"`
	MessageUserID                string `json:"messageUserId,omitempty"`
	MessageIssue                 string `json:"messageIssue,omitempty"`
	MessageProtocolVersion       string `json:"messageProtocolVersion,omitempty"`
	ClientSecurityServerAddress  string `json:"clientSecurityServerAddress,omitempty"`
	ServiceSecurityServerAddress string `json:"serviceSecurityServerAddress,omitempty"`
	RequestSize                  int64  `json:"requestSize,omitempty"`
	RequestMIMESize              int64  `json:"requestMimeSize,omitempty"`
	RequestAttachmentCount       int64  `json:"requestAttachmentCount,omitempty"`
	ResponseSize                 int64  `json:"responseSize,omitempty"`
	ResponseMIMESize             int64  `json:"responseMimeSize,omitempty"`
	ResponseAttachmentCount      int64  `json:"responseAttachmentCount,omitempty"`
	Succeeded                    bool   `json:"succeeded"`
	StatusCode                   int64  `json:"statusCode,omitempty"`
	FaultCode                    string `json:"faultCode,omitempty"`
	FaultString                  string `json:"faultString,omitempty"`
	XRequestID                   string `json:"xRequestId,omitempty"`
	XRoadVersion                 string `json:"xRoadVersion,omitempty"`
}

type exchanges struct {
	Body struct {
		Items []Exchange `json:"items"`
		Next  int64      `json:"next,omitempty" doc:"There are more from this second on"`
	}
}

func (a *API) operationalData(ctx context.Context, in *struct {
	MessageID string    `query:"message_id" doc:"Message id (x-road-id)"`
	From      time.Time `query:"from" doc:"Stored not before this time"`
	To        time.Time `query:"to" doc:"Stored not after this time"`
	Limit     int       `query:"limit" minimum:"0" maximum:"10000" doc:"At most so many, but those of one second come together; 0: 1000"`
}) (*exchanges, error) {
	if a.Operational == nil {
		return nil, problem(http.StatusConflict, guard.CodeUnavailable, "set operational_monitoring.enabled and restart the gateway", "this gateway keeps no operational data")
	}
	a.Operational.Wake()
	q := opmonitor.Query{MessageID: in.MessageID, From: in.From.Unix(), To: math.MaxInt64, Max: in.Limit}
	if !in.To.IsZero() {
		q.To = in.To.Unix()
	}
	if q.Max == 0 {
		q.Max = 1000
	}
	found, err := a.Operational.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	var doc struct{ Records []Exchange }
	z, err := gzip.NewReader(bytes.NewReader(found.JSON))
	if err == nil {
		err = json.NewDecoder(z).Decode(&doc)
	}
	if err != nil {
		return nil, err
	}
	out := new(exchanges)
	out.Body.Items, out.Body.Next = append([]Exchange{}, doc.Records...), found.NextFrom
	return out, nil
}

// Exchanges returns the operational data of a message, or of the last exchanges
// since a time.
func (c *Client) Exchanges(ctx context.Context, messageID string, from time.Time, limit int) ([]Exchange, error) {
	q := url.Values{}
	if messageID != "" {
		q.Set("message_id", messageID)
	}
	if !from.IsZero() {
		q.Set("from", from.UTC().Format(time.RFC3339))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return getAll[Exchange](ctx, c, path("operational-data"), q)
}
