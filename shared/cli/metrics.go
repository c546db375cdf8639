package cli

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/prometheus"
	"github.com/keyway-agents/keyway/shared/store"
)

// openMetrics begins to count, and listens for scrapes at --metrics-addr. Without the flag nothing is counted. The
// listener is one of its own, so that who can call the API can't read the metrics.
func (s *server) openMetrics(ctx context.Context) error {
	if s.MetricsAddr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(s.MetricsAddr)
	if err != nil || host == "" {
		return usage("--metrics-addr %s: write HOST:PORT; for all addresses of this machine the host is 0.0.0.0 or [::]",
			s.MetricsAddr)
	}
	if s.scrapes, err = new(net.ListenConfig).Listen(ctx, "tcp", s.MetricsAddr); err != nil {
		return usage("--metrics-addr: %w", err)
	}
	s.metrics = prometheus.New()
	return nil
}

// closeMetrics stops listening for scrapes.
func (s *server) closeMetrics() {
	if s.scrapes != nil {
		_ = s.scrapes.Close()
	}
}

// count counts what the spans show, and adds the metrics that a scrape asks for.
func (s *server) count() {
	if s.metrics == nil {
		return
	}
	s.spans.Tracer = meter.Tracer(s.spans.Tracer, s.metrics)
	number := func(name string, value func() int) {
		s.metrics.Gauge(name, func() float64 { return float64(value()) })
	}
	b := &backlog{read: s.db.Backlog}
	number("keyway_runs_waiting", func() int { return b.now().Waiting })
	number("keyway_runs_orphaned", func() int { return b.now().Orphaned })
	number(`keyway_store_connections{state="used"}`, func() int { used, _ := s.db.Connections(); return used })
	number(`keyway_store_connections{state="limit"}`, func() int { _, most := s.db.Connections(); return most })
	number("keyway_followers", func() int { return (*s.followers.Load())() })
	number(`keyway_lost{what="log lines"}`, func() int { return int(s.lostLines.Load()) })
	number(`keyway_lost{what="spans"}`, func() int { return int(s.spans.Lost()) })
	s.metrics.Gauge("keyway_revocations_age_seconds", func() float64 { return s.revocations.Age().Seconds() })
}

// backlog is what store.DB.Backlog has returned a moment ago, so that scrapes can't load the database.
type backlog struct {
	read func(context.Context) (store.Backlog, error)

	mu   sync.Mutex
	last store.Backlog
	next time.Time
}

// backlogFor is how long it is used, and backlogTime how long a read may take.
const (
	backlogFor  = 10 * time.Second
	backlogTime = 2 * time.Second
)

// now returns the numbers, or the previous ones if the database does not answer.
func (b *backlog) now() store.Backlog {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.next) {
		return b.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), backlogTime)
	defer cancel()
	if found, err := b.read(ctx); err == nil {
		b.last = found
	}
	b.next = time.Now().Add(backlogFor)
	return b.last
}

// serveMetrics answers GET /metrics until the listener is closed.
func (s *server) serveMetrics() {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics)
	web := &http.Server{
		Handler: mux, ReadTimeout: HeaderTime, WriteTimeout: scrapeTime, IdleTimeout: IdleTime, MaxHeaderBytes: 8192,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	_ = web.Serve(s.scrapes) // It ends with the server.
	_ = web.Close()
}

// scrapeTime is how long a scrape may take to read its answer.
const scrapeTime = 30 * time.Second
