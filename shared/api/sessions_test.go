package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestEachSessionRouteAnswersTheOwner(t *testing.T) {
	t.Parallel()
	s := newService(t, text("fine"))
	body := `{"session_id":"s","agent_id":"a","session_name":"first","session_state":{"n":1},"metadata":{"m":2}}`
	s.do("ann POST /sessions", body).
		want(t, http.StatusCreated, `"session_id":"s"`, `"session_name":"first"`, `"user_id":"ann"`,
			`"session_state":{"n":1}`,
			`"metadata":{"m":2}`, `"chat_history":[]`)
	id := s.run("ann", "s", "hello")
	for _, e := range []exchange{
		{"ann GET /sessions", "", 200, `"session_id":"s"`},
		{"ann GET /sessions/s", "", 200, `"content":"hello"`},
		{"ann GET /sessions/s?type=team", "", 200, `{"session_id":"s","session_name":"first","user_id":"ann"`},
		{"ann GET /sessions/s?type=workflow", "", 200, `"workflow_data":{}`},
		{"ann GET /sessions/s/runs", "", 200, `"run_id":"` + id},
		{"ann GET /sessions/s/run-previews", "", 200, `"content_preview":"fine"`},
		{"ann GET /sessions/s/runs/" + id, "", 200, `"run_input":"hello"`},
		{"ann PATCH /sessions/s", `{"session_state":{"n":3},"summary":{"s":4}}`, 200, `"session_state":{"n":3}`},
		{"ann POST /sessions/s/rename", `{"session_name":"second"}`, 200, `"session_name":"second"`},
		{"ann GET /sessions/s", "", 200, `"session_name":"second"`},
		{"ann DELETE /sessions/s", "", 204, ""},
		{"ann GET /sessions/s", "", 404, "Session with id 's' not found"},
		{"ann GET /sessions/s/runs", "", 404, "Session with ID s not found"},
		{"ann DELETE /sessions/s", "", 204, ""},
		{"ann DELETE /sessions", `{"session_ids":["s","no-session"],"session_types":["agent","agent"]}`, 204, ""},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}

func TestASessionWithoutAnIDGetsOne(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for typed, member := range map[string]string{"agent": "agent_id", "team": "team_id", "workflow": "workflow_id"} {
		body := `{"agent_id":"x-agent","team_id":"x-team","workflow_id":"x-workflow"}`
		got := s.do("ann POST /sessions?type="+typed, body).want(t, http.StatusCreated, `"`+member+`":"x-`+typed)
		s.do("ann GET /sessions/"+got.field(t, "session_id"), "").want(t, http.StatusOK)
	}
	s.do("ann POST /sessions", "").want(t, http.StatusCreated, `"session_id":`)
}

// The longest number that is accepted is one that PostgreSQL's numeric can still store.
func TestTheLongestNumberIsStored(t *testing.T) {
	t.Parallel()
	s := newService(t)
	number := "1." + strings.Repeat("7", 15_993) + "e-307"
	body := func(number string) string { return `{"session_id":"s","session_state":{"n":` + number + `}}` }
	s.do("ann POST /sessions", body(number+"7")).want(t, http.StatusUnprocessableEntity, "Number out of range")
	s.do("ann POST /sessions", body(number)).want(t, http.StatusCreated)
	s.do("ann GET /sessions/s", "").want(t, http.StatusOK, `"n":0.`+strings.Repeat("0", 306)+"17777")
}

func TestInvalidSessionRequestsNameTheInput(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("ann POST /sessions", `{"session_id":"taken"}`).want(t, http.StatusCreated)
	s.expect(t, map[string]exchange{
		"a limit of 0": {"ann GET /sessions?limit=0", "", 422, `"loc":["query","limit"]`},
		"a limit that is too large": {
			"ann GET /sessions?limit=1001", "", 422, `"type":"less_than_equal","loc":["query","limit"]`,
		},
		"a limit that is no number":  {"ann GET /sessions?limit=ten", "", 422, `"loc":["query","limit"]`},
		"a page of 0":                {"ann GET /sessions?page=0", "", 422, `"loc":["query","page"]`},
		"a page beyond 32 bits":      {"ann GET /sessions?page=2147483648", "", 422, `"loc":["query","page"]`},
		"an unknown type":            {"ann GET /sessions?type=group", "", 422, `"loc":["query","type"]`},
		"an unknown direction":       {"ann GET /sessions?sort_order=up", "", 422, `"loc":["query","sort_order"]`},
		"a NUL in the name filter":   {"ann GET /sessions?session_name=%00", "", 422, `"loc":["query","session_name"]`},
		"an unknown database":        {"ann GET /sessions?db_id=other", "", 404, "No database found with id 'other'"},
		"a table without a database": {"ann GET /sessions?table=x", "", 400, "db_id query parameter is required"},
		"an id that is taken":        {"ann POST /sessions", `{"session_id":"taken"}`, 409, "already exists"},
		"an id of 256 bytes": {
			"ann POST /sessions", `{"session_id":"` + strings.Repeat("x", 256) + `"}`, 422, `"loc":["body","session_id"]`,
		},
		"a state that is a list": {
			"ann POST /sessions", `{"session_state":[1]}`, 422, `"type":"dict_type","loc":["body","session_state"]`,
		},
		"a body that is no JSON": {"ann POST /sessions", `{"session_id":`, 422, `"type":"json_invalid"`},
		"a new name is missing":  {"ann POST /sessions/taken/rename", `{}`, 422, `"loc":["body","session_name"]`},
		"a new name that is a number": {
			"ann POST /sessions/taken/rename", `{"session_name":1}`, 422, `"loc":["body","session_name"]`,
		},
		"a summary that is text": {"ann PATCH /sessions/taken", `{"summary":"short"}`, 422, `"loc":["body","summary"]`},
		"no ids to delete": {
			"ann DELETE /sessions", `{"session_ids":[],"session_types":["agent"]}`, 422, `"loc":["body","session_ids"]`,
		},
		"ids without types": {
			"ann DELETE /sessions", `{"session_ids":["s"]}`, 422, `"loc":["body","session_types"]`,
		},
		"an unknown type among others": {
			"ann DELETE /sessions", `{"session_ids":["s","t"],"session_types":["agent","x"]}`, 422,
			`"loc":["body","session_types",1]`,
		},
		"more ids than types": {
			"ann DELETE /sessions", `{"session_ids":["s","t"],"session_types":["agent"]}`, 400, "must have the same length",
		},
		"an unknown run status": {
			"ann GET /sessions/taken/runs?status=done", "", 400, "Invalid status value(s) ['DONE']",
		},
		"a time that is no number": {
			"ann GET /sessions/taken/runs?created_after=noon", "", 422, `"loc":["query","created_after"]`,
		},
		"an unknown run": {
			"ann GET /sessions/taken/runs/" + missing, "", 404, "Run with ID " + missing + " not found in session taken",
		},
		"a caller without a subject":  {"noname GET /sessions", "", 403, "missing a user identity"},
		"a nameless caller's session": {"noname POST /sessions", `{}`, 403, "missing a user identity"},
	})
}

func TestASessionOfAnotherOwnerLooksLikeAMissingOne(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.run("ann", "hers", "secret")
	s.expectLikeMissing("bob", []exchange{
		{"GET /sessions/SESSION", "", 404, ""},
		{"GET /sessions/SESSION?user_id=ann", "", 404, ""},
		{"PATCH /sessions/SESSION", `{"session_name":"stolen"}`, 404, ""},
		{"POST /sessions/SESSION/rename?user_id=ann", `{"session_name":"stolen"}`, 404, ""},
		{"GET /sessions/SESSION/runs", "", 404, ""},
		{"GET /sessions/SESSION/run-previews", "", 404, ""},
		{"GET /sessions/SESSION/runs/RUN", "", 404, ""},
		{"DELETE /sessions/SESSION?user_id=ann", "", 204, ""},
		{"DELETE /sessions", `{"session_ids":["SESSION"],"session_types":["agent"]}`, 204, ""},
		{"GET /sessions?user_id=ann", "", 200, ""},
		{"GET /sessions?session_name=secret", "", 200, ""},
	}, "hers", id, missing)
	s.do("ann GET /sessions/hers", "").want(t, 200, `"session_name":"secret"`)
	// The same id is free for another owner.
	s.do("bob POST /sessions", `{"session_id":"hers"}`).want(t, http.StatusCreated, `"user_id":"bob"`)
}

func TestASessionIDOfSeveralUsersNeedsTheUser(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, caller := range []string{"ann", "bob"} {
		s.do(caller+" POST /sessions", `{"session_id":"same","session_name":"of `+caller+`"}`).want(t, http.StatusCreated)
	}
	for _, e := range []exchange{
		{"admin GET /sessions/same", "", 409, "user_id"},
		{"admin GET /sessions/same?user_id=bob", "", 200, "of bob"},
		{"admin GET /sessions/same?user_id=eve", "", 404, ""},
		{"admin GET /sessions?user_id=ann", "", 200, `"total_count":1`},
		{"admin DELETE /sessions/same", "", 409, "user_id"},
		{"admin DELETE /sessions/same?user_id=bob", "", 204, ""},
		{"admin GET /sessions/same", "", 200, "of ann"},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}

func TestSessionsAreListedPageByPage(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for i := range 5 {
		kind := []string{"agent", "team"}[i%2]
		body := fmt.Sprintf(`{"session_id":"s%d","session_name":"Name %d","agent_id":"a","team_id":"t"}`, i, i)
		s.do("ann POST /sessions?type="+kind, body).want(t, http.StatusCreated)
	}
	for query, want := range map[string]struct {
		ids  string
		meta wire.PageMeta
	}{
		"": {
			"s4 s3 s2 s1 s0", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 5},
		},
		"limit=2":        {"s4 s3", wire.PageMeta{Page: 1, Limit: 2, TotalPages: 3, TotalCount: 5}},
		"limit=2&page=3": {"s0", wire.PageMeta{Page: 3, Limit: 2, TotalPages: 3, TotalCount: 5}},
		"limit=2&page=4": {"", wire.PageMeta{Page: 4, Limit: 2, TotalPages: 3, TotalCount: 5}},
		"limit=1000&page=2147483647": {
			"", wire.PageMeta{Page: 2147483647, Limit: 1000, TotalPages: 1, TotalCount: 5},
		},
		"sort_by=session_id&sort_order=asc": {
			"s0 s1 s2 s3 s4", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 5},
		},
		"sort_by=unknown&limit=1":            {"s4", wire.PageMeta{Page: 1, Limit: 1, TotalPages: 5, TotalCount: 5}},
		"type=team":                          {"s3 s1", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 2}},
		"component_id=a":                     {"s4 s2 s0", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 3}},
		"session_name=NAME%203":              {"s3", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 1, TotalCount: 1}},
		"session_name=%25":                   {"", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 0, TotalCount: 0}},
		"sort_by=updated_at&limit=2&page=2":  {"s2 s1", wire.PageMeta{Page: 2, Limit: 2, TotalPages: 3, TotalCount: 5}},
		"user_id=bob&db_id=keyway&table=any": {"", wire.PageMeta{Page: 1, Limit: 20, TotalPages: 0, TotalCount: 0}},
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			var page wire.Page[struct {
				ID string `json:"session_id"`
			}]
			if err := json.Unmarshal(s.do("ann GET /sessions?"+query, "").want(t, 200).Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, row := range page.Data {
				ids = append(ids, row.ID)
			}
			if got := strings.Join(ids, " "); got != want.ids {
				t.Errorf("sessions %s, want %s", got, want.ids)
			}
			if diff := cmp.Diff(want.meta, page.Meta); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRunsOfASessionAreFiltered(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.run("ann", "s", strings.Repeat("x", 300))
	s.do("ann GET /sessions/s/run-previews", "").want(t, 200, `"run_input":"`+strings.Repeat("x", 280)+`"`)
	for query, found := range map[string]bool{
		"":                               true,
		"?status=completed":              true,
		"?status=error&status=COMPLETED": true,
		"?status=error":                  false,
		"?created_after=1":               true,
		"?created_after=99999999999":     false,
		"?created_before=1":              false,
		"?created_before=99999999999":    true,
	} {
		got := s.do("ann GET /sessions/s/runs"+query, "").want(t, 200)
		if strings.Contains(got.Body.String(), id) != found {
			t.Errorf("%q: %s, want the run: %t", query, got.Body, found)
		}
	}
}

func TestNoSessionIsMadeThatAPathCanNotName(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, id := range []string{"abc/", "a/b", ".", "..", "a?b", "a#b", "a%2Fb", `a\\b`, " a", `a\t`} {
		s.do("ann POST /sessions", `{"session_id":"`+id+`"}`).want(t, 422, `"loc":["body","session_id"]`, "A new id can't be")
		unquoted := strings.NewReplacer(`\\`, `\`, `\t`, "\t").Replace(id)
		form := "message=m&stream=false&session_id=" + url.QueryEscape(unquoted)
		s.do("ann POST /agents/a/runs", form).want(t, 422, `"loc":["body","session_id"]`, "A new id can't be")
	}
	if s.model.count() > 0 {
		t.Error("the model was called")
	}
}

// Earlier releases made sessions with any id.
func TestAnEscapedSlashReachesNoSession(t *testing.T) {
	t.Parallel()
	s := newService(t)
	run := s.run("ann", "abc", "hello")
	for _, id := range []string{"abc/", "abc/runs", "a/b"} {
		row := store.Session{Owner: "ann", SessionID: id, SessionType: "agent", CreatedAt: time.Now()}
		if err := s.db.CreateSession(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []exchange{
		{"ann DELETE /sessions/abc%2F", "", 404, "Not Found"},
		{"ann DELETE /sessions/abc%2f", "", 404, "Not Found"},
		{"ann DELETE /sessions/abc%2F%2F", "", 404, "Not Found"},
		{"ann DELETE /sessions/abc%2F/", "", 404, "Not Found"},
		{"ann DELETE /sessions%2Fabc", "", 404, "Not Found"},
		{"ann GET /sessions/abc%2F", "", 404, "Not Found"},
		{"ann GET /sessions/abc%2Fruns", "", 404, "Not Found"},
		{"ann GET /sessions/abc%2Fruns/" + run, "", 404, "Not Found"},
		{"ann GET /sessions/abc%2F/runs", "", 404, "Not Found"},
		{"ann GET /sessions/a%2Fb", "", 404, "Not Found"},
		{"ann PATCH /sessions/abc%2F", `{"session_name":"x"}`, 404, "Not Found"},
		{"ann POST /sessions/abc%2Frename", `{"session_name":"x"}`, 404, "Not Found"},
		{"ann POST /agents/a/runs/" + run + "%2Fcancel", "", 404, "Not Found"},
		{"ann DELETE /memories/" + run + "%2F", "", 404, "Not Found"},
		{"ann GET /sessions/abc", "", 200, `"session_name":"hello"`},
		{
			"ann DELETE /sessions",
			`{"session_ids":["abc/","abc/runs","a/b"],"session_types":["agent","agent","agent"]}`, 204, "",
		},
		{"ann GET /sessions", "", 200, `"total_count":1`},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}

// agent-ui asks for the runs of a new session as soon as the run has started, and shows what it gets instead of what
// it has streamed. AgentOS answers 404 then.
func TestARunThatIsBeingStreamedIsNotListed(t *testing.T) {
	t.Parallel()
	goAhead := make(chan struct{})
	s := newService(t, waitFor(goAhead), text("fine"))
	ended := make(chan reply, 1)
	go func() { ended <- s.do("ann POST /agents/a/runs", "message=m&session_id=new") }()
	id := s.running("new")
	for _, list := range []string{"runs", "run-previews"} {
		s.do("ann GET /sessions/new/"+list+"?type=agent&db_id=keyway", "").want(t, 404, "Session with ID new not found")
		s.do("ann GET /sessions/new/"+list+"?status=running", "").want(t, 200, `"run_id":"`+id)
		s.do("ann GET /sessions/new/"+list+"?status=completed", "").want(t, 200, "[]")
	}
	// A caller who has lost the stream finds the run.
	s.do("ann GET /agents/a/runs?session_id=new", "").want(t, 200, `"run_id":"`+id)
	s.do("ann GET /sessions/new/runs/"+id, "").want(t, 200, `"status":"RUNNING"`)
	s.do("ann GET /sessions", "").want(t, 200, `"session_id":"new"`)

	// A session with other runs lists those.
	s.run("ann", "new", "second")
	got := s.do("ann GET /sessions/new/runs", "").want(t, 200, `"run_input":"second"`)
	if strings.Contains(got.Body.String(), id) {
		t.Errorf("the run in progress is listed: %s", got.Body)
	}
	close(goAhead)
	(<-ended).want(t, 200, "event: RunCompleted")
	s.do("ann GET /sessions/new/runs", "").want(t, 200, `"run_id":"`+id, `"run_input":"second"`)
}

func TestASessionThatWasCreatedListsNoRuns(t *testing.T) {
	t.Parallel()
	goAhead := make(chan struct{})
	s := newService(t, waitFor(goAhead))
	s.do("ann POST /sessions", `{"session_id":"s","agent_id":"a"}`).want(t, 201)
	s.do("ann GET /sessions/s/runs", "").want(t, 200, "[]")
	ended := make(chan reply, 1)
	go func() { ended <- s.do("ann POST /agents/a/runs", "message=m&session_id=s") }()
	s.running("s")
	s.do("ann GET /sessions/s/runs", "").want(t, 200, "[]")
	close(goAhead)
	(<-ended).want(t, 200)
}

func TestRunsAreReadByPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, message := range []string{"first", "second", "third"} {
		s.run("ann", "s", message)
	}
	s.remember("ann", "a", "t1", "t2", "t3")
	for _, path := range []string{
		"/sessions/s?", "/sessions/s/runs?", "/sessions/s/run-previews?", "/agents/a/runs?session_id=s&",
	} {
		for page, want := range map[string]string{
			"": "first second third", "limit=2": "first second", "limit=2&page=1": "first second",
			"limit=2&page=2": "third", "limit=2&page=3": "", "limit=1000": "first second third", "page=2": "first second third",
		} {
			body := s.do("ann GET "+path+page, "").want(t, 200).Body.String()
			var seen []string
			for _, message := range []string{"first", "second", "third"} {
				if strings.Contains(body, `"run_input":"`+message) || strings.Contains(body, `"content":"`+message) {
					seen = append(seen, message)
				}
			}
			if got := strings.Join(seen, " "); got != want {
				t.Errorf("%s%s has %q, want %q", path, page, got, want)
			}
		}
		for _, page := range []string{"limit=0", "limit=1001", "limit=x", "page=0", "limit=", "page=2147483648"} {
			s.do("ann GET "+path+page, "").want(t, 422, `"loc":["query","`)
		}
	}
	s.do("ann GET /memory_topics", "").want(t, 200, `["t1","t2","t3"]`)
	s.do("ann GET /memory_topics?limit=2&page=2", "").want(t, 200, `["t3"]`)
	s.do("ann GET /memory_topics?limit=1001", "").want(t, 422, `"loc":["query","limit"]`)
}

// ann's token is bound to one of her sessions. With it, her other sessions and their runs look missing, on every route
// that finds one.
func TestATokenForOneSessionReachesNoOtherSession(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"), text("fine"))
	other := s.run("ann", "other", "m") // paused
	s.do("ann POST /sessions", `{"session_id":"third"}`).want(t, http.StatusCreated)
	for _, e := range []exchange{
		{"bound GET /sessions", "", 200, `"total_count":0`},
		{"bound GET /sessions/other", "", 404, "Session with id 'other' not found"},
		{"bound GET /sessions/other/runs", "", 404, "not found"},
		{"bound GET /sessions/other/run-previews", "", 404, "not found"},
		{"bound GET /sessions/other/runs/" + other, "", 404, "not found"},
		{"bound PATCH /sessions/other", `{"session_name":"x"}`, 404, "not found"},
		{"bound POST /sessions/other/rename", `{"session_name":"x"}`, 404, "not found"},
		{"bound DELETE /sessions/other", "", 204, ""},
		{"bound DELETE /sessions", `{"session_ids":["other","third"],"session_types":["agent","agent"]}`, 204, ""},
		{"bound POST /sessions", `{"session_id":"fourth"}`, 403, "bound to one session"},
		{"bound GET /agents/a/runs?session_id=other", "", 404, "Session not found"},
		{"bound GET /agents/a/runs/" + other + "?session_id=other", "", 404, "Run not found"},
		{"bound POST /agents/a/runs/" + other + "/resume", "x=", 404, "Run not found"},
		{"bound POST /agents/a/runs/" + other + "/continue", "session_id=other&tools=[]", 404, "Run not found"},
		{"bound POST /agents/a/runs/" + other + "/cancel?session_id=other", "", 404, "Run not found"},
		{"bound POST /agents/a/runs/" + other + "/cancel", "", 404, "Run not found"},
		{"bound-admin GET /sessions", "", 200, `"total_count":2`}, // it is no limit for an administrator
		{"bound-admin GET /sessions/other", "", 200, `"session_id":"other"`},
		{"bound-admin GET /agents/a/runs/" + other + "?session_id=other", "", 200, other},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
	s.do("ann GET /sessions/third", "").want(t, 200)
	s.do("ann GET /sessions/other/runs/"+other, "").want(t, 200, `"status":"PAUSED"`)

	s.do("bound POST /sessions", "").want(t, http.StatusCreated, `"session_id":"bound-session"`)
	own := s.run("bound", "bound-session", "m")
	for _, e := range []exchange{
		{"bound GET /sessions", "", 200, `"total_count":1`},
		{"bound GET /sessions/bound-session", "", 200, `"session_id":"bound-session"`},
		{"bound GET /sessions/bound-session/runs", "", 200, own},
		{"bound PATCH /sessions/bound-session", `{"session_name":"x"}`, 200, `"session_name":"x"`},
		{"bound GET /agents/a/runs/" + own + "?session_id=bound-session", "", 200, own},
		{"bound POST /agents/a/runs/" + own + "/cancel", "", 200, ""},
		{"bound POST /memories", `{"memory":"tea"}`, 200, "tea"},
		{"bound GET /memories", "", 200, "tea"}, // a memory belongs to no session
		{"bound DELETE /sessions/bound-session", "", 204, ""},
		{"ann GET /sessions/bound-session", "", 404, ""},
	} {
		s.do(e.request, e.body).want(t, e.status, e.text)
	}
}
