// SPDX-License-Identifier: Apache-2.0

package metaservice_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"kontor/gateway"
	"kontor/gateway/metaservice"
)

// However many ask, few documents are in memory; who has gone waits no more.
func TestDocumentsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const asked = 5 * metaservice.MaxHeld
		entered, leave, done := make(chan struct{}, asked), make(chan struct{}), make(chan error, asked)
		serve := metaservice.Hold(func(http.ResponseWriter, *http.Request, *gateway.Call) error {
			entered <- struct{}{}
			<-leave
			return nil
		})
		ask := func(ctx context.Context) {
			done <- serve(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil), nil)
		}
		for range asked {
			go ask(t.Context())
		}
		synctest.Wait()
		if n := len(entered); n != metaservice.MaxHeld {
			t.Errorf("%d documents are in memory, want %d", n, metaservice.MaxHeld)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		ask(gone)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone got %v", err)
		}
		close(leave)
		for range asked {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
