// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"kontor/config"
	"kontor/gateway/tunnel"
)

// quicListener answers peers over QUIC, on the port on which they find HTTPS.
type quicListener struct {
	server *tunnel.QUICServer
	socket net.PacketConn
	log    *zap.Logger
}

// listenQUIC opens the socket.
func listenQUIC(cfg *config.Gateway, sc tunnel.ServerConfig) (*quicListener, error) {
	secret, err := NewSecret(filepath.Join(cfg.DataDir, "quic-reset.key"), "data_dir")
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(secret)
	sc.ResetKey = &key
	sc.Windows = windows(cfg)
	server, err := tunnel.NewQUICServer(sc)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenPacket("udp", cfg.Listen.Peer)
	if err != nil {
		return nil, fmt.Errorf("listen.peer: %w; free the UDP port, or set tunnel.transport to https", err)
	}
	if err := growBuffer(socket, sc.Log); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return &quicListener{server, socket, sc.Log}, nil
}

// udpBuffer is what quic-go wants a socket's buffer to hold.
const udpBuffer = 7 << 20

// growBuffer warns, in place of quic-go, of a kernel that keeps too little.
func growBuffer(socket net.PacketConn, log *zap.Logger) error {
	if err := os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true"); err != nil {
		return err
	}
	got, err := growUDPBuffer(socket.(*net.UDPConn), udpBuffer)
	if err != nil || got < udpBuffer {
		log.Warn("the kernel keeps few UDP packets, so QUIC is slower than it could be; run: sysctl net.core.rmem_max=7500000 net.core.wmem_max=7500000",
			zap.Int("bytes", got), zap.Error(err))
	}
	return nil
}

func windows(cfg *config.Gateway) tunnel.Windows {
	return tunnel.Windows{Stream: int64(cfg.Tunnel.StreamWindow), Connection: int64(cfg.Tunnel.ConnectionWindow)}
}

// run serves until ctx is done; then it lets requests under way finish.
func (q *quicListener) run(ctx context.Context) error {
	q.log.Info("listening", zap.String("endpoint", "listen.peer"), zap.String("protocol", "QUIC"), zap.Stringer("address", q.socket.LocalAddr()))
	served := make(chan error, 1)
	go func() { served <- q.server.Serve(q.socket) }()
	select {
	case err := <-served:
		return fmt.Errorf("listen.peer: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := q.server.Shutdown(grace); err != nil {
		q.log.Warn("requests under way were cut off", zap.String("endpoint", "listen.peer"), zap.Error(err))
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listen.peer: %w", err)
	}
	return nil
}
