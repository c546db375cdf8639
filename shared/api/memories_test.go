package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/wire"
)

func TestEachMemoryRouteAnswersTheOwner(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.remember("ann", "likes tea", "drinks", "tea")
	for _, e := range []exchange{
		{"ann GET /memories", "", 200, `"memory":"likes tea"`},
		{"ann GET /memories/" + id, "", 200, `"topics":["drinks","tea"]`},
		{"ann PATCH /memories/" + id, `{"memory":"likes coffee"}`, 200, `"topics":["drinks","tea"]`},
		{"ann PATCH /memories/" + id, `{"memory":"likes coffee","topics":[]}`, 200, `"topics":[]`},
		{"ann PATCH /memories/" + id, `{"memory":"likes milk","topics":["milk"],"user_id":"bob"}`, 200, `"user_id":"ann"`},
		{"ann GET /memory_topics", "", 200, `["milk"]`},
		{"ann GET /user_memory_stats", "", 200, `"user_id":"ann","total_memories":1`},
		{"ann DELETE /memories/" + id, "", 204, ""},
		{"ann GET /memories/" + id, "", 404, "Memory with ID " + id + " not found"},
		{"ann DELETE /memories/" + id, "", 204, ""},
		{"ann DELETE /memories", `{"memory_ids":["` + id + `","nonsense"]}`, 204, ""},
		{"ann GET /memory_topics", "", 200, `[]`},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}

func TestOnlyAnAdministratorWritesMemoriesOfOthers(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for caller, owner := range map[string]string{"ann": "ann", "admin": "bob"} {
		s.do(caller+" POST /memories", `{"memory":"m","user_id":"bob"}`).want(t, 200, `"user_id":"`+owner+`"`)
	}
	s.do("admin POST /memories", `{"memory":"m"}`).want(t, 200, `"user_id":"root"`)
	s.do("noname POST /memories", `{"memory":"m","user_id":"ann"}`).want(t, 403, "missing a user identity")
}

func TestInvalidMemoryRequestsNameTheInput(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.remember("ann", "likes tea")
	s.expect(t, map[string]exchange{
		"no memory": {
			"ann POST /memories", `{"topics":["x"]}`, 422, `"type":"missing","loc":["body","memory"]`,
		},
		"an empty memory": {"ann POST /memories", `{"memory":""}`, 422, `"loc":["body","memory"]`},
		"a memory of 5001 characters": {
			"ann POST /memories", `{"memory":"` + strings.Repeat("é", 5001) + `"}`, 422,
			`"type":"string_too_long","loc":["body","memory"]`,
		},
		"a NUL in a memory": {"ann POST /memories", `{"memory":"a\u0000b"}`, 422, `"loc":["body","memory"]`},
		"topics that are text": {
			"ann POST /memories", `{"memory":"m","topics":"x"}`, 422, `"type":"list_type","loc":["body","topics"]`,
		},
		"a topic that is a number": {
			"ann POST /memories", `{"memory":"m","topics":["x",1]}`, 422, `"loc":["body","topics",1]`,
		},
		"no body":               {"ann POST /memories", "", 422, `"type":"missing","loc":["body"]`},
		"a body that is a list": {"ann POST /memories", "[]", 422, `"loc":["body"]`},
		"no ids to delete":      {"ann DELETE /memories", `{"memory_ids":[]}`, 422, `"loc":["body","memory_ids"]`},
		"a limit of 0":          {"ann GET /memories?limit=0", "", 422, `"loc":["query","limit"]`},
		"a limit that is too large": {
			"ann GET /memories?limit=1001", "", 422, `"type":"less_than_equal","loc":["query","limit"]`,
		},
		"a page of -1":              {"ann GET /memories?page=-1", "", 422, `"loc":["query","page"]`},
		"an unknown direction":      {"ann GET /memories?sort_order=up", "", 422, `"loc":["query","sort_order"]`},
		"too many users on a page":  {"admin GET /user_memory_stats?limit=1001", "", 422, `"loc":["query","limit"]`},
		"page 0 of the users":       {"admin GET /user_memory_stats?page=0", "", 422, `"loc":["query","page"]`},
		"an unknown database":       {"ann GET /memory_topics?db_id=x", "", 404, "No database found"},
		"an id that is no UUID":     {"ann GET /memories/nonsense", "", 404, "Memory with ID nonsense not found"},
		"a change without a memory": {"ann PATCH /memories/" + id, `{"topics":[]}`, 422, `"loc":["body","memory"]`},
		"a merge without a user":    {"ann POST /optimize-memories", `{}`, 422, `"loc":["body","user_id"]`},
		"a merge of all users": {
			"admin POST /optimize-memories", `{"user_id":""}`, 422, `"type":"string_too_short","loc":["body","user_id"]`,
		},
		"a merge with apply as text": {
			"ann POST /optimize-memories", `{"user_id":"ann","apply":"no"}`, 422, `"type":"bool_type","loc":["body","apply"]`,
		},
		"a merge by an unknown model": {"ann POST /optimize-memories", `{"user_id":"ann","model":"x:y"}`, 400, "x:y"},
		"a merge of no memories": {
			"bob POST /optimize-memories", `{"user_id":"ann"}`, 404, "No memories found for user bob",
		},
	})
}

func TestAMemoryOfAnotherOwnerLooksLikeAMissingOne(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.remember("ann", "secret", "hidden")
	s.expectLikeMissing("bob", []exchange{
		{"GET /memories/MEMORY", "", 404, ""},
		{"GET /memories/MEMORY?user_id=ann", "", 404, ""},
		{"PATCH /memories/MEMORY", `{"memory":"stolen","user_id":"ann"}`, 404, ""},
		{"DELETE /memories/MEMORY?user_id=ann", "", 204, ""},
		{"DELETE /memories", `{"memory_ids":["MEMORY"],"user_id":"ann"}`, 204, ""},
	}, "hers", missing, id)
	for _, request := range []string{
		"GET /memories?user_id=ann", "GET /memories?search_content=secret", "GET /memory_topics?user_id=ann",
		"GET /user_memory_stats?user_id=ann",
	} {
		if got := s.do("bob "+request, "").want(t, 200); strings.Contains(got.Body.String(), "secret") ||
			strings.Contains(got.Body.String(), "hidden") || strings.Contains(got.Body.String(), `"total_memories":1`) {
			t.Errorf("%s shows another owner's memory: %s", request, got.Body)
		}
	}
	s.do("ann GET /memories/"+id, "").want(t, 200, "secret")
	s.do("admin GET /memories?user_id=ann", "").want(t, 200, "secret")
}

func TestMemoriesAreListedPageByPage(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for i := range 4 {
		s.remember("ann", fmt.Sprintf("Memory %d", i), fmt.Sprintf("t%d", i%2), "all")
	}
	for query, want := range map[string]struct {
		memories string
		meta     wire.PageMeta
	}{
		"":                                  {"3 2 1 0", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 4}},
		"limit=3":                           {"3 2 1", wire.PageMeta{Page: 1, Limit: 3, TotalPages: 2, TotalCount: 4}},
		"limit=3&page=2":                    {"0", wire.PageMeta{Page: 2, Limit: 3, TotalPages: 2, TotalCount: 4}},
		"limit=1000&page=2147483647":        {"", wire.PageMeta{Page: 2147483647, Limit: 1000, TotalPages: 1, TotalCount: 4}},
		"sort_by=created_at&sort_order=asc": {"0 1 2 3", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 4}},
		"topics=t1":                         {"3 1", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 2}},
		"topics=t1,%20all":                  {"3 1", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 2}},
		"topics=t0&topics=t1":               {"", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 0, TotalCount: 0}},
		"search_content=MEMORY%202":         {"2", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 1}},
		"agent_id=a":                        {"", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 0, TotalCount: 0}},
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			var page wire.Page[wire.Memory]
			body := s.do("ann GET /memories?"+query, "").want(t, 200).Body.Bytes()
			if err := json.Unmarshal(body, &page); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			var found []string
			for _, m := range page.Data {
				found = append(found, strings.TrimPrefix(m.Memory, "Memory "))
			}
			if got := strings.Join(found, " "); got != want.memories {
				t.Errorf("memories %s, want %s", got, want.memories)
			}
			if diff := cmp.Diff(want.meta, page.Meta); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMemoryStatsListTheUsersThatTheCallerSees(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.remember("ann", "one")
	s.remember("ann", "two")
	s.remember("bob", "three")
	s.do("admin GET /user_memory_stats", "").
		want(t, 200, `"user_id":"bob","total_memories":1`, `"user_id":"ann","total_memories":2`)
	s.do("admin GET /user_memory_stats?limit=1&page=2", "").want(t, 200, `"user_id":"ann"`, `"total_pages":2`)
	s.do("ann GET /user_memory_stats", "").want(t, 200, `"user_id":"ann"`, `"total_count":1`)
}

func TestMergingReplacesTheMemoriesOnlyWhenApplied(t *testing.T) {
	t.Parallel()
	s := newService(t, text("drinks tea and coffee"), text("drinks tea and coffee"), text(""))
	s.remember("ann", "likes tea", "drinks")
	s.remember("ann", "likes coffee", "drinks", "coffee")
	s.do("ann POST /optimize-memories", `{"user_id":"bob","apply":false}`).
		want(t, 200, `"memory":"drinks tea and coffee"`, `"memories_before":2`, `"memories_after":1`)
	s.do("ann GET /memories", "").want(t, 200, `"total_count":2`)
	s.do("ann POST /optimize-memories", `{"user_id":"ann","model":"test:m-1"}`).
		want(t, 200, `"topics":["drinks","coffee"]`, `"user_id":"ann"`)
	s.do("ann GET /memories", "").want(t, 200, `"total_count":1`, `"memory":"drinks tea and coffee"`)
	s.do("ann POST /optimize-memories", `{"user_id":"ann"}`).
		want(t, http.StatusBadGateway, "the memories are unchanged")
	s.do("ann GET /memories", "").want(t, 200, `"total_count":1`)
}
