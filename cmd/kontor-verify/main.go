// SPDX-License-Identifier: Apache-2.0

// Command kontor-verify tells whether signed documents of an X-Road ecosystem
// are genuine. See [kontor/cmd/verify].
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kontor/cmd/verify"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := verify.Run(ctx, "kontor-verify", os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
