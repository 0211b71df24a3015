// SPDX-License-Identifier: Apache-2.0

package metaservice_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kontor/gateway/metaservice"
)

var errLate = errors.New("waited too long")

// However many ask, few documents are in memory; who has gone waits no more.
func TestDocumentsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const asked = 5 * metaservice.MaxHeld
		turns := metaservice.NewTurns(errLate)
		got, errs := make(chan func(), asked), make(chan error, asked)
		ask := func(ctx context.Context) {
			done, err := turns(ctx, "", func(context.Context) error { return nil })
			if err != nil {
				errs <- err
			} else {
				got <- done
			}
		}
		for range asked {
			go ask(t.Context())
		}
		synctest.Wait()
		if n := len(got); n != metaservice.MaxHeld {
			t.Errorf("%d documents are in memory, want %d", n, metaservice.MaxHeld)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		ask(gone)
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone got %v", err)
		}
		for range asked {
			(<-got)()
		}
	})
}

// A server that hangs keeps few places, and not for long; the others go on.
func TestHangingServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const asked = 5 * metaservice.MaxHeld
		turns := metaservice.NewTurns(errLate)
		var there atomic.Int32
		hang := func(ctx context.Context) error {
			if n := there.Add(1); n > metaservice.MaxPerHost {
				t.Errorf("%d are at the server at once", n)
			}
			defer there.Add(-1)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		begun, errs := time.Now(), make(chan error, asked)
		for range asked {
			go func() {
				_, err := turns(t.Context(), "hangs", hang)
				errs <- err
			}()
		}
		synctest.Wait()
		for i := range 3 * metaservice.MaxHeld {
			done, err := turns(t.Context(), fmt.Sprintf("server-%d", i%3), func(context.Context) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			done()
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("others waited %s", waited)
		}
		late, hung := 0, 0
		for range asked {
			switch err := <-errs; {
			case errors.Is(err, errLate):
				late++
			case errors.Is(err, context.DeadlineExceeded):
				hung++
			default:
				t.Error(err)
			}
		}
		if hung < metaservice.MaxPerHost || late == 0 { // at the last instant one may still get in
			t.Errorf("%d got to the server, %d waited in vain", hung, late)
		}
		if waited := time.Since(begun); waited != metaservice.FetchTime {
			t.Errorf("it took %s", waited)
		}
	})
}
