package store_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// events are the rows of a run's events whose frames have the given texts. Each text is one row, and each of its
// letters one event.
func events(r store.Run, attempt, first int, texts ...string) (list []store.Events) {
	for _, text := range texts {
		frames := ""
		for _, letter := range text {
			frames += string(letter) + "\n\n"
		}
		list = append(list, store.Events{RunID: r.RunID, Attempt: attempt, First: first, Count: len(text), Frames: frames})
		first += len(text)
	}
	return list
}

func addEvents(t *testing.T, db *store.DB, list []store.Events) {
	t.Helper()
	if _, err := db.AddEvents(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}

// followed returns the texts of the rows that Follow returns.
func followed(t *testing.T, db *store.DB, r store.Run, attempt, after int) (texts []string) {
	t.Helper()
	news, err := db.Follow(t.Context(), r.RunID, attempt, after)
	if err != nil || !news.Found {
		t.Fatal(news, err)
	}
	for _, f := range news.Frames {
		texts = append(texts, strings.ReplaceAll(string(f.Data), "\n\n", ""))
	}
	return texts
}

func TestAFollowerReadsFromTheRowWithTheFirstMissingEvent(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r, other := begin(t, db, "ann", "s", 0), begin(t, db, "bob", "s", 0)
	addEvents(t, db, append(events(r, 1, 0, "abc", "d", "ef"), events(other, 1, 0, "his")...))
	for after, want := range map[int][]string{
		-1 << 31: {"abc", "d", "ef"}, -1: {"abc", "d", "ef"}, 0: {"abc", "d", "ef"}, 1: {"abc", "d", "ef"},
		2: {"d", "ef"}, 3: {"ef"}, 4: {"ef"}, 5: nil, 1<<31 - 1: nil,
	} {
		if diff := cmp.Diff(want, followed(t, db, r, 1, after)); diff != "" {
			t.Errorf("after %d: %s", after, diff)
		}
	}
	if got := followed(t, db, r, 2, -1); got != nil {
		t.Errorf("another attempt has the events %q", got)
	}
	news, err := db.Follow(t.Context(), uuid.New(), 1, -1)
	if err != nil || news.Found || news.Status != "" || len(news.Frames) > 0 {
		t.Errorf("a run that does not exist: %+v %v", news, err)
	}
}

func TestAFollowerReadsLimitedParts(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for name, row := range map[string]struct {
		rows, bytes int // the rows, and the bytes of each
		most        int // the most rows of a part
	}{
		"many small rows": {600, 10, 256},
		"large rows":      {7, 100 << 10, 2},
		"huge rows":       {3, 1 << 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := begin(t, db, "ann", "s", 0)
			var list []store.Events
			for i := range row.rows {
				frames := strings.Repeat("x", row.bytes-2) + "\n\n"
				list = append(list, store.Events{RunID: r.RunID, Attempt: 1, First: i, Count: 1, Frames: frames})
			}
			addEvents(t, db, list)
			after := -1
			for after < row.rows-1 {
				news, err := db.Follow(t.Context(), r.RunID, 1, after)
				if n := len(news.Frames); err != nil || n == 0 || n > row.most {
					t.Fatalf("after %d: %d rows, %v", after, n, err)
				}
				for _, f := range news.Frames {
					if after++; f.First != after || f.Count != 1 || len(f.Data) != row.bytes {
						t.Fatalf("row %d has event %d and %d bytes", after, f.First, len(f.Data))
					}
				}
			}
		})
	}
}

func TestProgressAndCountsAreThoseOfThePresentAttempt(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r, empty, gone := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0), uuid.New()
	addEvents(t, db, append(events(r, 1, 0, "abc", "d"), events(r, 2, store.FirstIndex(2), "e")...))
	got := map[uuid.UUID]store.Progress{}
	list, err := db.Progress(t.Context(), []uuid.UUID{r.RunID, empty.RunID, gone})
	for _, p := range list {
		got[p.RunID] = p
	}
	want := map[uuid.UUID]store.Progress{
		r.RunID:     {RunID: r.RunID, Status: "RUNNING", Attempt: 1, Last: 3},
		empty.RunID: {RunID: empty.RunID, Status: "RUNNING", Attempt: 1, Last: -1},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if list, err := db.Progress(t.Context(), nil); err != nil || len(list) > 0 {
		t.Errorf("the progress of no run: %v %v", list, err)
	}
	for after, missed := range map[int]int{-1: 4, 0: 3, 2: 1, 3: 0, 1<<31 - 1: 0} {
		c, err := db.EventCounts(t.Context(), r.RunID, after)
		if err != nil || c.Progress != want[r.RunID] || c.Total != 4 || c.Missed != missed {
			t.Errorf("after %d: %+v %v", after, c, err)
		}
	}
	c, err := db.EventCounts(t.Context(), empty.RunID, -1)
	if err != nil || c.Progress != want[empty.RunID] || c.Total != 0 {
		t.Errorf("a run without events: %+v %v", c, err)
	}
	if _, err := db.EventCounts(t.Context(), gone, -1); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := db.ReleaseRun(t.Context(), leg(r)); err != nil {
		t.Fatal(err)
	}
	claim(t, db, r.RunID)
	list, err = db.Progress(t.Context(), []uuid.UUID{r.RunID})
	if err != nil || list[0].Attempt != 2 || list[0].Last != -1 {
		t.Errorf("after a claim: %+v %v", list, err)
	}
}

func TestOnlyTheViewerFindsTheHeadOfARun(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	q := store.RunQuery{RunID: r.RunID.String(), SessionID: "s", AgentID: "a"}
	want := store.RunHead{RunID: r.RunID, Owner: "ann", SessionID: "s", AgentID: "a", Status: "RUNNING", Attempt: 1}
	for _, v := range []store.Viewer{ann, admin} {
		if got, err := db.RunHead(t.Context(), v, q); err != nil || got != want {
			t.Errorf("%+v sees %+v %v", v, got, err)
		}
	}
	for _, v := range []store.Viewer{{Owner: "bob"}, {}} {
		if got, err := db.RunHead(t.Context(), v, q); !errors.Is(err, fault.NotFound) || got != (store.RunHead{}) {
			t.Errorf("%+v sees %+v %v", v, got, err)
		}
	}
	q.RunID = "no id"
	if _, err := db.RunHead(t.Context(), admin, q); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// The columns that grow with a run are the reason why a follower has statements of its own.
func TestAFollowerReadsNoColumnThatGrowsWithTheRun(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var statements []string
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), func(m wiretap.Message) {
		mu.Lock()
		defer mu.Unlock()
		statements = append(statements, m.Text)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	db := storetest.Open(t, store.Options{URL: tap.URL})
	r := begin(t, db, "ann", "s", 0)
	mu.Lock()
	statements = nil
	mu.Unlock()
	for _, read := range []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := db.RunHead(ctx, ann, store.RunQuery{RunID: r.RunID.String()})
			return err
		},
		func(ctx context.Context) error { _, err := db.Progress(ctx, []uuid.UUID{r.RunID}); return err },
		func(ctx context.Context) error { _, err := db.EventCounts(ctx, r.RunID, -1); return err },
		func(ctx context.Context) error { _, err := db.Follow(ctx, r.RunID, 1, -1); return err },
	} {
		if err := read(t.Context()); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(statements, "\n")
	if !strings.Contains(all, "frames") {
		t.Fatalf("the statements are %s", all)
	}
	growing := regexp.MustCompile(
		`\b(messages|tools|requirements|checkpoint|content|files|input|metrics|provider_data|r\.\*)\b`)
	if found := growing.FindString(all); found != "" {
		t.Errorf("a follower reads %s: %s", found, all)
	}
}
