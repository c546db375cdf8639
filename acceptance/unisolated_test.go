package acceptance

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// Without isolation every caller with the scopes reads and changes all data. If two owners
// have a session of the same ID, a request must name the owner.
func TestWithoutIsolationAmbiguousSessionIDNeedsAUser(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: false"), echoModel(t))
	runs := map[string]string{}
	for _, sub := range []string{"ann", "bob"} {
		runs[sub] = field(t, r.Run(sub, "assistant", "message", sub+"'s words", "session_id", "both",
			"stream", "false"), "run_id")
	}
	r.Run("ann", "assistant", "message", "alone", "session_id", "single").Want(t, "run", 200)
	for _, row := range []struct {
		request, body string
		status        int
		shows         string // in the answer for user_id=ann
	}{
		{"GET /sessions/both", "", 200, "ann's words"},
		{"PATCH /sessions/both", `{"metadata":{"by":"bob"}}`, 200, `"metadata":{"by":"bob"}`},
		{"POST /sessions/both/rename", `{"session_name":"renamed"}`, 200, `"session_name":"renamed"`},
		{"GET /sessions/both/runs", "", 200, "ann's words"},
		{"GET /sessions/both/run-previews", "", 200, "ann's words"},
		{"GET /sessions/both/runs/" + runs["ann"], "", 200, "ann's words"},
		{"GET /agents/assistant/runs?session_id=both", "", 200, "ann's words"},
		{"DELETE /sessions", `{"session_ids":["single","both"],"session_types":["agent","agent"]}`, 204, ""},
		{"DELETE /sessions/both", "", 204, ""},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		ask := func(path string) process.Reply {
			if row.body == "" {
				return r.Call("bob", method, path, nil)
			}
			return r.json("bob", method, path, row.body)
		}
		got := ask(path)
		got.Want(t, row.request, 409, "Several users have a session 'both'; choose one with user_id")
		if strings.Contains(got.Body, "words") {
			t.Errorf("%s shows data of an ambiguous ID: %s", row.request, got.Body)
		}
		r.Get("ann", "/sessions/single").Want(t, "one of several is not deleted alone", 200)
		and := "?"
		if strings.Contains(path, "?") {
			and = "&"
		}
		if method != "DELETE" {
			named := ask(path + and + "user_id=ann")
			named.Want(t, row.request+" of ann", row.status, row.shows)
			if strings.Contains(named.Body, "bob's words") {
				t.Errorf("%s with user_id=ann shows bob's data: %s", row.request, named.Body)
			}
		}
	}
	r.Get("ann", "/sessions/both?user_id=bob").Want(t, "bob's session is unchanged", 200, `"session_name":"bob's words"`)
	r.Get("ann", "/agents/assistant/runs/"+runs["bob"]+"?session_id=both").
		Want(t, "a run's ID is unique", 200, "bob's words")
	r.json("ann", "DELETE", "/sessions?user_id=bob", `{"session_ids":["both"],"session_types":["agent"]}`).
		Want(t, "delete bob's", 204)
	r.Get("bob", "/sessions/both").Want(t, "one session remains", 200, `"user_id":"ann"`)
	r.Call("bob", "DELETE", "/sessions/both", nil).Want(t, "delete ann's", 204)
	r.Get("ann", "/sessions/both").Want(t, "no session remains", 404)
}

func TestWithoutIsolationEveryCallerReadsEverything(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.WithTools, writeConfig(t, "user_isolation: false"), echoModel(t))
	r.Run("ann", "assistant", "message", "her words", "session_id", "s").Want(t, "run", 200)
	memory := field(t, r.json("ann", "POST", "/memories", `{"memory":"likes tea","topics":["tea"]}`), "memory_id")
	for path, shows := range map[string]string{
		"/sessions":                                "her words",
		"/sessions/s":                              "her words",
		"/sessions/s/runs":                         "her words",
		"/agents/assistant/runs?session_id=s":      "her words",
		"/memories":                                "likes tea",
		"/memories/" + memory:                      "likes tea",
		"/memory_topics":                           "tea",
		"/user_memory_stats":                       `"user_id":"ann"`,
		"/memories?user_id=bob":                    `"data":[]`,
		"/sessions?user_id=bob":                    `"data":[]`,
		"/memories/" + memory + "?user_id=bob":     "not found",
		"/sessions/s?user_id=bob":                  "not found",
		"/agents/assistant/runs?session_id=nobody": "not found",
	} {
		status := 200
		if shows == "not found" {
			status = 404
		}
		for _, sub := range []string{"bob", "", "ann"} {
			r.Get(sub, path).Want(t, sub+" "+path, status, shows)
		}
	}
	// A token without a subject may name a user, or run without one.
	r.Run("", "assistant", "message", "hi", "stream", "false", "user_id", "carl").
		Want(t, "a run for a named user", 200, `"user_id":"carl"`)
	r.Run("", "assistant", "message", "hi", "stream", "false", "session_id", "ownerless").
		Want(t, "a run without an owner", 200)
	r.Get("bob", "/sessions/ownerless").Want(t, "a session without an owner", 200)
	r.json("", "POST", "/memories", `{"memory":"x"}`).Want(t, "a memory without an owner", 400, "User ID is required")
	r.Run("bob", "assistant", "message", "hi", "stream", "false", "user_id", "carl").
		Want(t, "the token's subject wins", 200, `"user_id":"bob"`)
}
