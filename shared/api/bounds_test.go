package api_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/bound"
)

// eventOf returns the data of the event of that name in a stream.
func eventOf(t *testing.T, stream, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(stream, "event: "+name+"\ndata: ")
	if !found {
		t.Fatalf("no %s in %.300s", name, stream)
	}
	data, _, _ := strings.Cut(rest, "\n")
	return data
}

func TestTenSmallRunsInASessionWithTheLargestStateStoreItOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	// PostgreSQL compresses a text of equal letters.
	var words strings.Builder
	for i := 0; words.Len() < bound.SessionState.Default-100; i++ {
		fmt.Fprintf(&words, "%x", i*2654435761)
	}
	state := `{"a":"` + words.String() + `"}`
	s.do("ann POST /sessions", `{"session_id":"s","session_state":`+state+`}`).want(t, 201)
	before := s.stored(t)
	sent, received := 0, 0
	for range 10 {
		const body = "message=m&session_id=s"
		answer := s.do("ann POST /agents/a/runs", body).want(t, 200).Body.String()
		sent, received = sent+len(body), received+len(answer)
		live := eventOf(t, answer, "RunCompleted")
		if !strings.Contains(live, `"session_state":`+state) {
			t.Errorf("the stream lacks the state: %.300s", live)
		}
		id := eventOf(t, answer, "RunStarted")
		_, id, _ = strings.Cut(id, `"run_id":"`)
		id, _, _ = strings.Cut(id, `"`)
		again := s.do("ann POST /agents/a/runs/"+id+"/resume", "").want(t, 200).Body.String()
		if replayed := eventOf(t, again, "RunCompleted"); replayed != live {
			t.Errorf("the event is replayed as %.300s\nand was %.300s", replayed, live)
		}
		s.do("ann GET /agents/a/runs/"+id+"?session_id=s", "").want(t, 200, words.String())
	}
	grown := s.stored(t) - before
	t.Logf("10 runs: %d bytes stored, %d received, %d sent to the client", grown, sent, received)
	if grown > 64<<10 {
		t.Errorf("ten runs of %d bytes have stored %d bytes", sent, grown)
	}
	if n := s.do("ann GET /agents/a/runs?session_id=s", "").want(t, 200).Body.Len(); n > 64<<10 {
		t.Errorf("the list of runs has %d bytes", n)
	}
}

// stored returns how many bytes the rows of runs, events and sessions have.
func (s *service) stored(t *testing.T) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	err = conn.QueryRow(t.Context(), `SELECT (SELECT COALESCE(sum(pg_column_size(r.*)), 0) FROM keyway.runs r)
		+ (SELECT COALESCE(sum(pg_column_size(e.*)), 0) FROM keyway.run_events e)
		+ (SELECT COALESCE(sum(pg_column_size(s.*)), 0) FROM keyway.sessions s)`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// jsonText returns a JSON text of n bytes.
func jsonText(n int) string { return `"` + strings.Repeat("x", n) + `"` }

// jsonObject returns a JSON object of n bytes.
func jsonObject(n int) string { return `{"a":"` + strings.Repeat("x", n-8) + `"}` }

// jsonList returns a JSON list of n equal elements.
func jsonList(n int, element string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

func TestOneMoreThanEachBoundIsRefusedOverHTTP(t *testing.T) {
	t.Parallel()
	s := newService(t)
	files := func(n, size int) string {
		const part = "--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n" +
			"Content-Type: text/plain\r\n\r\n"
		return "--X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nx\r\n" +
			strings.Repeat(part+strings.Repeat("x", size)+"\r\n", n) + "--X--\r\n"
	}
	multipart := []string{"Content-Type", "multipart/form-data; boundary=X"}
	type request struct {
		request, body string
		headers       []string
		sent          int // shown in the answer; 0: the bound and one more
	}
	for name, r := range map[string]func(n int) request{
		"body": func(n int) request { return request{request: "POST /agents/a/runs", body: strings.Repeat("x", n)} },
		"fields": func(n int) request {
			return request{request: "POST /agents/a/runs", body: "message=x" + strings.Repeat("&a=", n-1)}
		},
		"members": func(n int) request {
			var b strings.Builder
			for i := range n - 1 {
				fmt.Fprintf(&b, `,"m%d":0`, i)
			}
			return request{request: "POST /memories", body: `{"memory":"x"` + b.String() + `}`}
		},
		"elements": func(n int) request {
			return request{request: "DELETE /memories", body: `{"memory_ids":` + jsonList(n, `"x"`) + `}`}
		},
		"filters":    func(n int) request { return request{request: "GET /memories?" + strings.Repeat("topics=x&", n)} },
		"short_text": func(n int) request { return request{request: "GET /memories?user_id=" + strings.Repeat("x", n)} },
		"new_id": func(n int) request {
			return request{request: "POST /sessions", body: `{"session_id":` + jsonText(n) + `}`}
		},
		"idempotency_key": func(n int) request {
			key := []string{"Idempotency-Key", strings.Repeat("x", n)}
			return request{request: "POST /agents/a/runs", body: "message=x", headers: key}
		},
		"message": func(n int) request {
			return request{request: "POST /agents/a/runs", body: "message=" + strings.Repeat("x", n)}
		},
		"files": func(n int) request {
			return request{request: "POST /agents/a/runs", body: files(n, 1), headers: multipart}
		},
		"file_size": func(n int) request {
			return request{request: "POST /agents/a/runs", body: files(1, n), headers: multipart}
		},
		"files_size": func(n int) request {
			return request{request: "POST /agents/a/runs", body: files(3, n/3+1), headers: multipart, sent: 3 * (n/3 + 1)}
		},
		"file_name": func(n int) request {
			body := strings.Replace(files(1, 1), "a.txt", strings.Repeat("a", n), 1)
			return request{request: "POST /agents/a/runs", body: body, headers: multipart}
		},
		"tool_results": func(n int) request {
			return request{request: "POST /agents/a/runs/x/continue", body: "tools=" + strings.Repeat("x", n)}
		},
		"tool_calls": func(n int) request {
			return request{request: "POST /agents/a/runs/x/continue", body: "session_id=s&tools=" + jsonList(n, "{}")}
		},
		"session_state": func(n int) request {
			return request{request: "PATCH /sessions/s", body: `{"session_state":` + jsonObject(n) + `}`}
		},
		"metadata": func(n int) request {
			return request{request: "PATCH /sessions/s", body: `{"metadata":` + jsonObject(n) + `}`}
		},
		"summary": func(n int) request {
			return request{request: "PATCH /sessions/s", body: `{"summary":` + jsonObject(n) + `}`}
		},
		"session_name": func(n int) request {
			return request{request: "PATCH /sessions/s", body: `{"session_name":` + jsonText(n) + `}`}
		},
		"memory": func(n int) request { return request{request: "POST /memories", body: `{"memory":` + jsonText(n) + `}`} },
		"topics": func(n int) request {
			return request{request: "POST /memories", body: `{"memory":"x","topics":` + jsonList(n, `"x"`) + `}`}
		},
		"topic": func(n int) request {
			return request{request: "POST /memories", body: `{"memory":"x","topics":[` + jsonText(n) + `]}`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bound.Named(name)
			one := r(b.Default + 1)
			if one.sent == 0 {
				one.sent = b.Default + 1
			}
			text, err := json.Marshal(b.Exceeded(b.Default, one.sent))
			if err != nil {
				t.Fatal(err)
			}
			got := s.do("ann "+one.request, one.body, one.headers...)
			got.request = one.request
			got.want(t, b.Kind.Status(), string(text))
			if got.Body.Len() > 2000 {
				t.Errorf("the answer has %d bytes", got.Body.Len())
			}
		})
	}
}

func TestAListOfSessionsLeavesOutLargeMembersAndNamesThem(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("ann POST /sessions", `{"session_id":"small","session_state":{"a":1}}`).want(t, 201)
	s.do("ann POST /sessions", `{"session_id":"large"}`).want(t, 201)
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	// A row from before there were bounds.
	if _, err = conn.Exec(t.Context(), `UPDATE keyway.sessions SET name = repeat('n', 500000),
		state = jsonb_build_object('a', repeat('x', 500000)), metadata = jsonb_build_object('a', repeat('x', 500000)),
		summary = jsonb_build_object('a', repeat('x', 500000)) WHERE session_id = 'large'`); err != nil {
		t.Fatal(err)
	}
	list := s.do("admin GET /sessions?limit=20", "").want(t, 200,
		`"omitted":["session_state","metadata","session_summary"]`, `"session_state":{"a":1}`, "nnn…")
	if list.Body.Len() > 10_000 {
		t.Errorf("the list has %d bytes", list.Body.Len())
	}
	if n := s.do("ann GET /sessions/large", "").want(t, 200).Body.Len(); n < 2_000_000 {
		t.Errorf("the session has %d bytes", n)
	}
}

// refusedUnlessEmpty are the texts of which any value but an empty list is refused.
var refusedUnlessEmpty = []string{"images", "audio", "videos", "input_files"}

func TestEveryInputOfARouteHasABound(t *testing.T) {
	t.Parallel()
	var check func(route string, in reflect.Type)
	check = func(route string, in reflect.Type) {
		for f := range in.Fields() {
			tag := f.Tag
			kind := f.Type
			if kind.Kind() == reflect.Pointer {
				kind = kind.Elem()
			}
			name := cmp.Or(tag.Get("query"), tag.Get("header"), tag.Get("form"), tag.Get("json"))
			if tag.Get("maxbytes") != "" {
				t.Errorf("%s: %s has the tag maxbytes, which nothing reads", route, f.Name)
			}
			if kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct && tag.Get("json") != "" {
				check(route, kind.Elem())
			}
			switch {
			case kind.Kind() == reflect.Struct:
				check(route, kind)
			case kind.Kind() == reflect.Slice && tag.Get("bound") == "":
				t.Errorf("%s: %s has no bound", route, name)
			case kind == reflect.TypeFor[[]string]() && tag.Get("each") == "" && tag.Get("enum") == "":
				t.Errorf("%s: the elements of %s have no bound", route, name)
			case kind.Kind() == reflect.Int && name == "limit" && tag.Get("max") == "":
				t.Errorf("%s: limit has no maximum", route)
			case kind.Kind() == reflect.String && tag.Get("enum") == "" && tag.Get("unsupported") == "" &&
				tag.Get("bound") == "" && tag.Get("maxlen") == "" && !slices.Contains(refusedUnlessEmpty, name):
				t.Errorf("%s: %s has no bound", route, name)
			}
			for _, key := range []string{"bound", "each"} {
				if tag.Get(key) != "" {
					bound.Named(tag.Get(key)) // panics for an unknown name
				}
			}
		}
	}
	endpoints := api.Endpoints(api.OS{}, &api.Readiness{}, api.Agents{}, api.Runs{}, api.Sessions{}, api.Memories{},
		api.Metrics{}, api.Revocations{}, api.UserData{}, api.Local{}, api.Dev{})
	for _, e := range endpoints {
		check(string(e.Route), e.In)
	}
	if len(endpoints) < 20 {
		t.Errorf("%d endpoints", len(endpoints))
	}
}
