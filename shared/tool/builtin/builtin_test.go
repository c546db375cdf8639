package builtin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// own returns an operator's own tool.
func own(name string) tool.Tool {
	return tool.Func(name, "", func(context.Context, struct{}) (string, error) { return "own", nil })
}

func TestOpenAcceptsExactlyTheNames(t *testing.T) {
	t.Parallel()
	o := builtin.Options{Own: []tool.Tool{own("price")}}
	names, err := builtin.Names(o.Own)
	if err != nil || !slices.Equal(names, []string{"hackernews", "websearch", "price"}) {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		set, err := builtin.Open(config.Tool{Name: name}, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tools, err := set.Tools(t.Context()); err != nil || len(tools) == 0 {
			t.Errorf("%s: %v, %v", name, tools, err)
		}
		_ = set.Close()
	}
	for _, bad := range []config.Tool{{Name: "news"}, {}, {MCP: &config.MCP{URL: "ftp://x"}}} {
		if set, err := builtin.Open(bad, o); set != nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v, %v", bad, set, err)
		}
	}
}

func TestAnOwnToolNeedsAUniqueValidName(t *testing.T) {
	t.Parallel()
	for _, tools := range [][]tool.Tool{{own("hackernews")}, {own("a"), own("a")}, {{Name: "no_call"}}, {{}}} {
		if _, err := builtin.Names(tools); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v: %v", tools, err)
		}
	}
}

func TestTheEnvironmentCanReplaceAServicesAddress(t *testing.T) {
	t.Parallel()
	requested := make(chan string, 8)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requested <- r.URL.Path
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(srv.Close)
	o := builtin.Options{Lookup: func(name string) (string, bool) {
		return srv.URL, name == "HACKERNEWS_BASE_URL" || name == "WEBSEARCH_BASE_URL"
	}}
	for name, want := range map[string]string{"hackernews": "/topstories.json", "websearch": "/html/"} {
		set, err := builtin.Open(config.Tool{Name: name}, o)
		if err != nil {
			t.Fatal(err)
		}
		tools, _ := set.Tools(t.Context())
		if _, err := tools[0].Call(t.Context(), []byte(`{"query":"x"}`)); err == nil && name == "websearch" {
			t.Error("a response with status 418 is a success")
		}
		if name == "hackernews" {
			_, _ = tools[0].Call(t.Context(), []byte(`{}`))
		}
		if got := <-requested; got != want {
			t.Errorf("%s requests %s, want %s", name, got, want)
		}
		_ = set.Close()
	}
}

func TestAnMCPEntryConnectsWithItsHeaders(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != "k" {
			t.Errorf("headers %v", r.Header)
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	entry := config.MCP{URL: config.URL(srv.URL), Headers: map[string]config.Secret{"X-Key": "k"}}
	set, err := builtin.Open(config.Tool{MCP: &entry}, builtin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if _, err := set.Tools(t.Context()); err == nil || strings.Contains(fault.Detail(err), srv.URL) {
		t.Errorf("%v", err)
	}
}
