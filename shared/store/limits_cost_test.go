package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// pair begins and ends one run.
func pair(ctx context.Context, db *store.DB, budget store.Budget) error {
	r := newRun("RUNNING")
	if err := start(ctx, db, r, budget); err != nil {
		return err
	}
	r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
	_, err := db.FinishRun(ctx, leg(r), r, nil, store.Usage{ModelID: "m", Total: 10, MicroUSD: 1}, day)
	return err
}

// A begin with limits is one statement more, which takes the locks. It is sent in the same round trip.
func TestLimitsNeedNoFurtherRoundTrip(t *testing.T) {
	t.Parallel()
	for name, unnamed := range map[string]bool{"a server": false, "a function": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var statements, pings atomic.Int64
			w, err := wiretap.Open(context.WithoutCancel(t.Context()), storetest.URL(t), func(m wiretap.Message) {
				switch {
				case m.Kind == 'E':
					statements.Add(1)
				case m.Kind == 'Q' && m.Text == ping:
					pings.Add(1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.Close)
			db, err := store.Open(store.Options{URL: w.URL, Schema: storetest.Schema, MaxConns: 1, Unnamed: unnamed})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			// count returns what a pair costs. The first one prepares the statements, and is not counted.
			count := func(b store.Budget) (trips, sent int64) {
				t.Helper()
				for range 2 {
					trips, sent = pings.Load()-w.Trips.Load(), -statements.Load()
					if err := pair(t.Context(), db, b); err != nil {
						t.Fatal(err)
					}
					trips, sent = trips+w.Trips.Load()-pings.Load(), sent+statements.Load()
				}
				return trips, sent
			}
			trips, sent := count(store.Budget{Spender: "ann"})
			limitedTrips, limitedSent := count(allLimits("ann", 1e6))
			if trips != 2 || limitedTrips != 2 {
				t.Errorf("a begin and an end take %d round trips, and %d with limits", trips, limitedTrips)
			}
			if sent != 2 || limitedSent != 3 {
				t.Errorf("they are %d statements, and %d with limits", sent, limitedSent)
			}
		})
	}
}

// BenchmarkLimits compares a begin and an end of a run with all limits of a caller, an agent and the OS with those
// without any. The two take turns. Its figures are medians of the processor time of this process, without
// PostgreSQL's: that of the program, and that of the kernel, which grows with each time that the process waits.
func BenchmarkLimits(b *testing.B) {
	const block = 50
	db := storetest.New(b)
	turn := func(budget store.Budget) float64 {
		begin := cpu(b)
		for range block {
			if err := pair(b.Context(), db, budget); err != nil {
				b.Fatal(err)
			}
		}
		return float64(cpu(b)-begin) / block / 1000
	}
	none, all := store.Budget{Spender: "ann"}, allLimits("ann", 1e9)
	_, _ = turn(none), turn(all) // They prepare the statements.
	var without, with, more, ratio []float64
	for b.Loop() {
		n, a := turn(none), turn(all)
		without, with, more, ratio = append(without, n), append(with, a), append(more, a-n), append(ratio, a/n)
	}
	median := func(list []float64) float64 {
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(median(without), "none-µs/pair")
	b.ReportMetric(median(with), "all-µs/pair")
	b.ReportMetric(median(more), "more-µs/pair")
	b.ReportMetric(median(ratio), "all/none")
}

// cpu is the processor time of this process so far, in nanoseconds.
func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkLimitOfTheOS measures how many runs of different callers begin and end in a second, without limits and with
// one limit of the OS. Each caller has a connection. The kinds take turns. A commit is flushed to the disk, as in
// production and other than in tests.
func BenchmarkLimitOfTheOS(b *testing.B) {
	const pairs = 320 // of each kind in a turn
	url := durable(b)
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := storetest.Open(b, store.Options{URL: url, MaxConns: int32(callers), ConnectTimeout: time.Minute})
			kinds := []struct {
				name string
				os   limit.Limits
				took time.Duration
			}{
				{name: "none"}, {name: "concurrent_runs", os: limit.Limits{ConcurrentRuns: 1e9}},
				{name: "usd_per_day", os: limit.Limits{USDPerDay: 1e9}},
			}
			turn := func(os limit.Limits, pairs int) time.Duration {
				begin := time.Now()
				var all sync.WaitGroup
				for i := range callers {
					budget := store.Budget{Spender: fmt.Sprint("caller ", i), OS: os}
					all.Go(func() {
						for range pairs / callers {
							if err := pair(b.Context(), db, budget); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				return time.Since(begin)
			}
			for _, k := range kinds {
				turn(k.os, 2*callers) // It connects and prepares the statements.
			}
			for b.Loop() {
				for i := range kinds {
					kinds[i].took += turn(kinds[i].os, pairs)
				}
			}
			for _, k := range kinds {
				b.ReportMetric(float64(b.N*pairs)/k.took.Seconds(), k.name+"-pairs/s")
			}
			b.ReportMetric(float64(kinds[0].took)/float64(kinds[1].took), "concurrent_runs/none")
			b.ReportMetric(float64(kinds[0].took)/float64(kinds[2].took), "usd_per_day/none")
		})
	}
}

// durable returns the address of a migrated database on a PostgreSQL of its own that flushes each commit.
func durable(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "keyway-bench-") // As root, PostgreSQL can't enter the directories of b.TempDir.
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- PostgreSQL may run as another user
		b.Fatal(err)
	}
	server, err := devpg.Start(b.Context(), devpg.Options{Dir: dir, Durable: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	target := migrations.Target{URL: server.URL, Schema: storetest.Schema, OSID: storetest.OSID}
	if _, err := migrations.Run(b.Context(), target); err != nil {
		b.Fatal(err)
	}
	return server.URL
}

// A begin and an end of a run send their arguments and little else, each in one statement: no text of SQL, and no
// copy of the events. The messages and events of a run are nearly all of it.
func TestARunSendsFewStatementsAndBytes(t *testing.T) {
	t.Parallel()
	var statements atomic.Int64
	w, err := wiretap.Open(context.WithoutCancel(t.Context()), storetest.URL(t), func(m wiretap.Message) {
		if m.Kind == 'E' {
			statements.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	db := storetest.Open(t, store.Options{URL: w.URL, MaxConns: 1})
	frames := strings.Repeat("event: RunContent\ndata: {}\n\n", 2000)
	streamed := func() {
		t.Helper()
		r := newRun("RUNNING")
		if err := start(t.Context(), db, r, store.Budget{}); err != nil {
			t.Fatal(err)
		}
		r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
		events := []store.Events{{RunID: r.RunID, Attempt: r.Attempt, Count: 2000, Frames: frames}}
		if _, err := db.FinishRun(t.Context(), leg(r), r, events, store.Usage{ModelID: "m", Total: 10}, day); err != nil {
			t.Fatal(err)
		}
	}
	streamed() // The first one prepares the statements.
	sent, executed := w.Sent.Load(), statements.Load()
	streamed()
	sent, executed = w.Sent.Load()-sent, statements.Load()-executed
	most := int64(len(frames) + 1500)
	if os.Getenv("KEYWAY_STORE") == "unnamed" { // then each statement is sent with its text
		most += 6000
	}
	if executed != 2 || sent > most {
		t.Errorf("%d statements of %d bytes for %d bytes of events", executed, sent, len(frames))
	}
}
