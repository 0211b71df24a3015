// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/gateway/opmonitor"
	"kontor/registry/id"
)

func TestOperationalData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.records.Run(ctx) }()
	service := check[id.Service](t)(id.ParseService("DEV/GOV/2/p/code"))
	for _, name := range []string{"m1", "m2"} {
		w.records.Add(&opmonitor.Record{ServerType: opmonitor.Client, MessageID: name, Service: service, RequestIn: opmonitor.Num(17), Status: opmonitor.Num(200), Succeeded: true})
	}
	var found []admin.Exchange
	for deadline := time.Now().Add(10 * time.Second); len(found) == 0 && time.Now().Before(deadline); { // it is written as soon as somebody asks
		found = check[[]admin.Exchange](t)(w.root.Exchanges(t.Context(), "m2", time.Time{}, 0))
	}
	if len(found) != 1 || found[0].MessageID != "m2" || found[0].SecurityServerType != "Client" || found[0].RequestInTS != 17 || found[0].ServiceCode != "code" || found[0].StatusCode != 200 || !found[0].Succeeded {
		t.Errorf("%+v", found)
	}
	if all := check[[]admin.Exchange](t)(w.root.Exchanges(t.Context(), "", time.Now().Add(-time.Minute), 1)); len(all) != 2 {
		t.Errorf("%+v", all) // those of one second come together
	}
	if none := check[[]admin.Exchange](t)(w.root.Exchanges(t.Context(), "", time.Now().Add(time.Hour), 0)); len(none) != 0 {
		t.Errorf("%+v", none)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestExchangeHasEveryField compares the answer with what is kept.
func TestExchangeHasEveryField(t *testing.T) {
	t.Parallel()
	var names []string
	for f := range reflect.TypeFor[admin.Exchange]().Fields() {
		one := reflect.New(reflect.TypeFor[admin.Exchange]()).Elem()
		if v := one.FieldByIndex(f.Index); v.Kind() == reflect.Int64 {
			v.SetInt(1)
		} else if v.Kind() == reflect.String {
			v.SetString("x")
		}
		doc := map[string]any{}
		if err := json.Unmarshal(check[[]byte](t)(json.Marshal(one.Interface())), &doc); err != nil {
			t.Fatal(err)
		}
		if f.Name != "Succeeded" {
			delete(doc, "succeeded")
		}
		for name := range doc {
			if names = append(names, name); !opmonitor.Known(name) {
				t.Errorf("no field %s is kept", name)
			}
		}
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 40 {
		t.Errorf("%d fields", len(names))
	}
}
