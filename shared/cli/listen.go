package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownPatience is how long runs in progress may take to end after SIGTERM. Docker
// kills a container after 10 seconds and Kubernetes after 30, by default.
const shutdownPatience = 20 * time.Second

// listen serves until ctx ends, and then shuts down: it accepts no more requests,
// waits for runs in progress, and hands over those that take longer.
//
// Requests are encrypted unless encrypted is nil.
func (s *server) listen(ctx context.Context, encrypted *tls.Config) error {
	web := &http.Server{
		Handler: s, ReadHeaderTimeout: HeaderTime, IdleTimeout: IdleTime,
		MaxHeaderBytes: MaxHeader - 4096, // net/http adds 4096
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnState:      s.conns.note, ConnContext: withConnection,
		// No ReadTimeout and no WriteTimeout: they would end a long run and a long stream. serveInTime
		// sets the deadlines of bodies and answers, and each write of a stream has one of its own.
	}
	// The channel has room for the error, so that the goroutine ends even if ctx ended first.
	failed := make(chan error, 1)
	var listener net.Listener = s.conns
	if encrypted != nil {
		listener = tls.NewListener(listener, encrypted)
	}
	go func() { failed <- web.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case err := <-s.lostDB:
		// Without its database this process can only answer 503, and end no run. Its runs are
		// orphaned: the next start continues them.
		_ = web.Close()
		return fmt.Errorf("keyway can't work without its database: %w; see pg.log there, repair it, and start keyway again",
			err)
	case <-ctx.Done():
	}
	s.retireDB()                                // before the port is free for another program
	signal.Reset(os.Interrupt, syscall.SIGTERM) // a second ctrl-C ends the process at once
	fmt.Fprintf(s.err, "keyway stops; runs in progress have %s to end (press ctrl-C again to end them now)\n",
		shutdownPatience)
	s.background.Wait() // after this, no reload adds a runner
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
	defer cancel()
	// Shutdown waits for requests, and Wait for runs that no request waits for.
	err := web.Shutdown(ctx)
	for _, r := range s.runners {
		err = errors.Join(err, r.Wait(ctx))
	}
	// An error of Wait means that shutdownPatience has passed.
	if err != nil {
		s.handOver()
		endAnswers(web)
	}
	for _, r := range s.runners {
		_ = r.Close() // the process ends now, and with it whatever could not be closed
	}
	return web.Close()
}

// answerPatience is how long requests may take to send the end of their answer after their run was handed over.
const answerPatience = 2 * time.Second

// endAnswers lets the streams send the comment that names the resume route before their connections are closed. A
// hand-over has ended when the run is stored, and the request that follows the run notices that a moment later.
func endAnswers(web *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), answerPatience)
	defer cancel()
	_ = web.Shutdown(ctx) // listen closes whatever is still open
}

// handOverPatience is how long handing over may take: writing a checkpoint for each
// run, to a database that may be slow.
const handOverPatience = 5 * time.Second

// handOver stores the runs that did not end in time so that another server, or the
// next one here, continues them at once. A run that can't be stored continues there
// too, but only when its lease has expired.
func (s *server) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverPatience)
	defer cancel()
	left := 0
	for _, r := range s.runners {
		// HandOver stops the runs and makes them pending; Wait returns when that is done.
		left += r.HandOver()
		if err := r.Wait(ctx); err != nil {
			s.log.Warn("runs could not be handed over in time; they continue when their leases expire", "err", err)
		}
	}
	if left > 0 {
		fmt.Fprintf(s.err, "keyway: runs that did not end in time: %d; another keyway serve, or the next one here, "+
			"continues them\n", left)
	}
}
