package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// addMemory adds a memory that was created at minute n.
func addMemory(t *testing.T, db *store.DB, owner, text string, n int, topics ...string) store.Memory {
	t.Helper()
	if topics == nil {
		topics = []string{}
	}
	at := day.Add(time.Duration(n) * time.Minute)
	m := store.Memory{MemoryID: uuid.New(), Owner: owner, Memory: text, Topics: topics, CreatedAt: at, UpdatedAt: at}
	if err := db.AddMemory(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemoriesArePagedSortedAndFiltered(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	first := addMemory(t, db, "ann", "likes tea", 0, "food", "drink")
	addMemory(t, db, "ann", "100% sure", 1)
	addMemory(t, db, "ann", "Likes TEA too", 2, "food")
	addMemory(t, db, "bob", "likes coffee", 3, "food")
	if _, err := db.ChangeMemory(t.Context(), ann, first.MemoryID.String(), "likes green tea", nil,
		day.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		viewer store.Viewer
		q      store.MemoryQuery
		want   string
		total  int
	}{
		"latest change first": {ann, store.MemoryQuery{Limit: 9, Page: 1}, "likes green tea|Likes TEA too|100% sure", 3},
		"by creation": {ann, store.MemoryQuery{Limit: 9, Page: 1, SortBy: "created_at", Ascending: true},
			"likes green tea|100% sure|Likes TEA too", 3},
		"the second page":     {ann, store.MemoryQuery{Limit: 2, Page: 2}, "100% sure", 3},
		"far past the end":    {ann, store.MemoryQuery{Limit: 1<<31 - 1, Page: 1<<31 - 1}, "", 3},
		"a part, in any case": {ann, store.MemoryQuery{Limit: 9, Page: 1, Has: "tea"}, "likes green tea|Likes TEA too", 2},
		"wildcards are text":  {ann, store.MemoryQuery{Limit: 9, Page: 1, Has: "%"}, "100% sure", 1},
		"another wildcard":    {ann, store.MemoryQuery{Limit: 9, Page: 1, Has: "_"}, "", 0},
		"a topic": {ann, store.MemoryQuery{Limit: 9, Page: 1, Topics: []string{"food"}},
			"likes green tea|Likes TEA too", 2},
		"all of the topics": {ann, store.MemoryQuery{Limit: 9, Page: 1, Topics: []string{"drink", "food"}},
			"likes green tea", 1},
		"all users": {admin, store.MemoryQuery{Limit: 9, Page: 1},
			"likes green tea|likes coffee|Likes TEA too|100% sure", 4},
		"one user":        {admin, store.MemoryQuery{Limit: 9, Page: 1, Owner: "bob"}, "likes coffee", 1},
		"bob's, for ann":  {ann, store.MemoryQuery{Limit: 9, Page: 1, Owner: "bob"}, "", 0},
		"the zero viewer": {store.Viewer{}, store.MemoryQuery{Limit: 9, Page: 1}, "", 0},
		"an agent":        {ann, store.MemoryQuery{Limit: 9, Page: 1, AgentID: "a"}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			page, total, err := db.Memories(t.Context(), row.viewer, row.q)
			var texts []string
			for _, m := range page {
				texts = append(texts, m.Memory)
			}
			if got := strings.Join(texts, "|"); err != nil || got != row.want || total != row.total {
				t.Errorf("%q of %d, %v; want %q of %d", got, total, err, row.want, row.total)
			}
		})
	}
}

func TestAChangeWithoutTopicsKeepsTheTopics(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	id := addMemory(t, db, "ann", "a", 5, "t").MemoryID.String()
	for _, row := range []struct {
		topics, want []string
	}{{nil, []string{"t"}}, {[]string{"u", "t"}, []string{"u", "t"}}, {nil, []string{"u", "t"}}, {[]string{},
		[]string{}}} {
		m, err := db.ChangeMemory(t.Context(), ann, id, "b", row.topics, day)
		if diff := cmp.Diff(row.want, m.Topics); err != nil || diff != "" || m.Memory != "b" {
			t.Errorf("%v: %+v %v %s", row.topics, m, err, diff)
		}
	}
}

func TestEachChangeOfAMemoryIncreasesItsTime(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	m := addMemory(t, db, "ann", "a", 5, "t")
	id, last := m.MemoryID.String(), day.Add(5*time.Minute)
	for _, row := range []struct {
		text   string
		topics []string
		now    time.Time
		want   time.Time
	}{
		{"b", nil, day.Add(6 * time.Minute), day.Add(6 * time.Minute)},
		{"c", nil, day, day.Add(6*time.Minute + time.Microsecond)}, // by a process whose clock is behind
		{"c", nil, day, day.Add(6*time.Minute + time.Microsecond)}, // no change
		{"c", []string{"u"}, day, day.Add(6*time.Minute + 2*time.Microsecond)},
		{"c", nil, day.Add(7 * time.Minute), day.Add(7 * time.Minute)},
	} {
		m, err := db.ChangeMemory(t.Context(), ann, id, row.text, row.topics, row.now)
		if err != nil || !m.UpdatedAt.Equal(row.want) {
			t.Errorf("%+v after %s: %s, %v", row, last, m.UpdatedAt, err)
		}
		last = m.UpdatedAt
	}
}

func TestAMergeLosesNoConcurrentChange(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	// The time of the second memory is after that of every change here: the clocks of two processes differ.
	addMemory(t, db, "ann", "old", 0)
	addMemory(t, db, "ann", "of a clock that is ahead", 60)
	read, _, err := db.Memories(t.Context(), ann, store.MemoryQuery{Limit: 2, Page: 1, SortBy: "created_at",
		Ascending: true})
	if err != nil {
		t.Fatal(err)
	}
	merged := store.Memory{MemoryID: uuid.New(), Owner: "ann", Memory: "merged", Topics: []string{}, CreatedAt: day}
	for _, now := range []time.Time{day, day.Add(time.Minute)} {
		id, before := read[0].MemoryID.String(), slices.Clone(read)
		if read[0], err = db.ChangeMemory(t.Context(), ann, id, "new at "+now.String(), nil, now); err != nil {
			t.Fatal(err)
		}
		if err := db.MergeMemories(t.Context(), before, merged); !errors.Is(err, fault.Conflict) {
			t.Errorf("a memory changed at %s: %v", now, err)
		}
	}
	if err := db.MergeMemories(t.Context(), read, merged); err != nil {
		t.Error(err)
	}
	left, n, err := db.Memories(t.Context(), ann, store.MemoryQuery{Limit: 9, Page: 1})
	if err != nil || n != 1 || left[0].Memory != "merged" {
		t.Errorf("%+v %v", left, err)
	}
}

func TestMemoriesOfOthersLookMissing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	hers := addMemory(t, db, "ann", "secret", 0, "topic")
	id := hers.MemoryID.String()
	for name, v := range map[string]store.Viewer{"bob": bob, "the zero viewer": {}} {
		for _, which := range []string{id, uuid.NewString()} {
			if _, err := db.Memory(t.Context(), v, which, ""); !errors.Is(err, fault.NotFound) {
				t.Errorf("%s reads: %v", name, err)
			}
			if _, err := db.ChangeMemory(t.Context(), v, which, "x", nil, day); !errors.Is(err, fault.NotFound) {
				t.Errorf("%s changes: %v", name, err)
			}
			if _, err := db.DeleteMemories(t.Context(), v, []string{which}, "ann"); err != nil {
				t.Errorf("%s deletes: %v", name, err)
			}
		}
		if topics, err := db.MemoryTopics(t.Context(), v, "ann", 0, 0); err != nil || len(topics) > 0 {
			t.Errorf("%s: %v %v", name, topics, err)
		}
		if stats, n, err := db.MemoryStats(t.Context(), v, store.MemoryQuery{Limit: 9, Page: 1}); err != nil || n > 0 ||
			len(stats) > 0 {
			t.Errorf("%s: %v %d %v", name, stats, n, err)
		}
	}
	if m, err := db.Memory(t.Context(), admin, id, "ann"); err != nil || m.Memory != "secret" {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := db.Memory(t.Context(), admin, id, "bob"); !errors.Is(err, fault.NotFound) {
		t.Errorf("restricted to bob: %v", err)
	}
	for _, odd := range []string{"", "x", "\x00", strings.ToUpper(id), "{" + id + "}"} {
		if _, err := db.Memory(t.Context(), admin, odd, ""); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", odd, err)
		}
	}
}

func TestSeveralMemoriesAreDeletedTogether(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var ids []string
	for n := range 4 {
		ids = append(ids, addMemory(t, db, "ann", fmt.Sprint(n), n).MemoryID.String())
	}
	bobs := addMemory(t, db, "bob", "his", 9).MemoryID.String()
	for _, row := range []struct {
		viewer store.Viewer
		ids    []string
		owner  string
		left   int
	}{
		{ann, append([]string{"nope", bobs, "\x00"}, ids[:1]...), "", 4},
		{admin, []string{ids[1], bobs}, "ann", 3},
		{admin, []string{ids[2], bobs}, "", 1},
		{ann, nil, "", 1},
	} {
		if _, err := db.DeleteMemories(t.Context(), row.viewer, row.ids, row.owner); err != nil {
			t.Fatal(err)
		}
		if _, n, err := db.Memories(t.Context(), admin, store.MemoryQuery{Limit: 1, Page: 1}); err != nil || n != row.left {
			t.Errorf("%+v deletes %q: %d are left, %v; want %d", row.viewer, row.ids, n, err, row.left)
		}
	}
}

func TestTopicsAndStatisticsAreCountedByUser(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	addMemory(t, db, "ann", "1", 0, "b", "a")
	addMemory(t, db, "ann", "2", 5, "a", "ä")
	addMemory(t, db, "bob", "3", 9, "c")
	for owner, want := range map[string][]string{"": {"a", "b", "c", "ä"}, "ann": {"a", "b", "ä"}, "zoe": nil} {
		got, err := db.MemoryTopics(t.Context(), admin, owner, 0, 0)
		less := func(a, b string) bool { return a < b }
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(less), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("topics of %q: %v %s", owner, err, diff)
		}
	}
	stats, total, err := db.MemoryStats(t.Context(), admin, store.MemoryQuery{Limit: 1, Page: 2})
	if err != nil || total != 2 || len(stats) != 1 || stats[0].Owner != "ann" || stats[0].Total != 2 ||
		!stats[0].LastUpdated.Equal(day.Add(5*time.Minute)) {
		t.Errorf("%+v of %d, %v", stats, total, err)
	}
}
