package hackernews_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/hackernews"
	"github.com/keyway-agents/keyway/shared/tool/tooltest"
)

// documented replaces the service, with the examples of its documentation.
func documented(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v0/") || !strings.HasSuffix(r.URL.Path, ".json") {
		http.NotFound(w, r)
		return
	}
	if r.URL.Path == "/v0/user/nobody.json" {
		_, _ = w.Write([]byte("null"))
		return
	}
	http.ServeFile(w, r, "testdata/"+path.Base(r.URL.Path))
}

// open returns the tools on a server with this handler.
func open(t *testing.T, h http.HandlerFunc) *hackernews.News {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	n, err := hackernews.New(srv.URL+"/v0/", tool.Egress{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// call calls a tool by name.
func call(ctx context.Context, t *testing.T, n *hackernews.News, name, arguments string) (string, error) {
	t.Helper()
	tools, err := n.Tools(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range tools {
		if c.Name == name {
			return c.Call(ctx, json.RawMessage(arguments))
		}
	}
	t.Fatalf("there is no %s", name)
	return "", nil
}

func TestTheToolsFollowTheRulesOfEveryTool(t *testing.T) {
	t.Parallel()
	tooltest.Run(t, open(t, documented), map[string]string{
		"get_top_hackernews_stories": "{}", "get_user_details": `{"username":"jl"}`,
	})
}

func TestAStoryHasItsAuthorAsUsername(t *testing.T) {
	t.Parallel()
	n := open(t, documented)
	for arguments, want := range map[string]string{
		"": "dhouston,pg", "{}": "dhouston,pg", `{"num_stories":null}`: "dhouston,pg", // item 1 doesn't exist
		`{"num_stories":1}`: "dhouston", `{"num_stories":0}`: "", `{"num_stories":-5}`: "",
		`{"num_stories":99999}`: "dhouston,pg",
	} {
		text, err := call(t.Context(), t, n, "get_top_hackernews_stories", arguments)
		var stories []struct{ By, Username, Title string }
		if err != nil || json.Unmarshal([]byte(text), &stories) != nil {
			t.Fatalf("%s: %q, %v", arguments, text, err)
		}
		var names []string
		for _, s := range stories {
			if s.By != s.Username || s.Title == "" {
				t.Errorf("%+v", s)
			}
			names = append(names, s.Username)
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("%s: %q, want %q", arguments, got, want)
		}
	}
}

func TestUserDetails(t *testing.T) {
	t.Parallel()
	n := open(t, documented)
	text, err := call(t.Context(), t, n, "get_user_details", `{"username":"jl"}`)
	if want := `{"id":"jl","karma":2937,"about":"This is a test","total_items_submitted":8}`; err != nil || text != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	_, err = call(t.Context(), t, n, "get_user_details", `{"username":"nobody"}`)
	if err == nil || !strings.Contains(err.Error(), `no Hacker News user "nobody"`) {
		t.Errorf("an unknown user: %v", err)
	}
}

func TestAUsernameCannotChangeThePath(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	n := open(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.RequestURI
		_, _ = w.Write([]byte("null"))
	})
	_, _ = call(t.Context(), t, n, "get_user_details", `{"username":"../item/8863.json?x=#"}`)
	if got := <-seen; got != "/v0/user/..%2Fitem%2F8863.json%3Fx=%23.json" {
		t.Errorf("request for %s", got)
	}
}

func TestAnErrorNamesTheServiceAndNotItsAddress(t *testing.T) {
	t.Parallel()
	for want, h := range map[string]http.HandlerFunc{
		"Hacker News answered with status 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"does not match its documentation": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>"))
		},
		"Hacker News cannot be reached": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"the answer is larger than 4194304 bytes": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 5<<20))
		},
		"is not a public address; to let tools re": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:9/", http.StatusFound)
		},
	} {
		_, err := call(t.Context(), t, open(t, h), "get_top_hackernews_stories", "{}")
		if err == nil || !strings.Contains(fault.Detail(err), want) || strings.Contains(fault.Detail(err), "http") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestACancelledCallStopsAllItsRequests(t *testing.T) {
	t.Parallel()
	why := errors.New("the user pressed stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	n := open(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/item/") {
			cancel(why)
			<-r.Context().Done()
			return
		}
		documented(w, r)
	})
	if _, err := call(ctx, t, n, "get_top_hackernews_stories", "{}"); !errors.Is(err, why) {
		t.Errorf("%v, want the cause", err)
	}
}

// The test lasts as long as a call may take: 10 seconds.
func TestACallEndsIfTheServiceHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	n := open(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	began := time.Now()
	_, err := call(t.Context(), t, n, "get_user_details", `{"username":"jl"}`)
	took := time.Since(began)
	if fault.KindOf(err) != fault.Unavailable || took < 9*time.Second || took > 14*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}

func TestTheNumberOfResultsIsBounded(t *testing.T) {
	t.Parallel()
	n := open(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/topstories.json") {
			_, _ = w.Write([]byte("[" + strings.Repeat("1,", 499) + "1]"))
			return
		}
		_, _ = w.Write([]byte(`{"id":1,"by":"ann","title":"T"}`))
	})
	text, err := call(t.Context(), t, n, "get_top_hackernews_stories", `{"num_stories":101}`)
	if got := strings.Count(text, `"username"`); err != nil || got != 100 {
		t.Errorf("%d stories, %v", got, err)
	}
}
