package programs

import (
	"path/filepath"
	"strings"
	"testing"
)

var _ = tried(entry{
	program: "llama.cpp's server, with a tiny model of fixed answers", name: "llamacpp", pkgs: []string{"xllamacpp"},
	tried: "`openai`, `openai-responses` and `anthropic` on it: whole runs, streamed and not, with one tool call " +
		"and with two, history, thoughts, a confirmation, a restart, a prompt longer than the context",
	date: "2026-11-29",
})

// llamaCPP starts the server with the model of testdata/llamacpp/model.py, and returns its address. The
// functions kill it, and start it again at that address.
func llamaCPP(t *testing.T) (url string, kill, start func()) {
	t.Helper()
	dir := program(t, "llamacpp")
	address, port := freeAddress(t)
	url = "http://" + address
	var server *daemon
	start = func() {
		server = launch(t, nil, filepath.Join(dir, "bin", "python"), "testdata/llamacpp/model.py", t.TempDir(), port)
		server.awaitHTTP(t, url+"/v1/models")
	}
	start()
	return url, func() { server.kill() }, start
}

func TestAgentsRunOnLlamaCPP(t *testing.T) {
	t.Parallel()
	server, kill, start := llamaCPP(t)
	r := serve(t, agentsOn("fixed"), nil, "OPENAI_BASE_URL", server+"/v1", "OPENAI_API_KEY", "sk-nobody-checks-it",
		"ANTHROPIC_BASE_URL", server, "ANTHROPIC_API_KEY", "sk-nobody-checks-it")
	const ready, done = "The té is ready.", "I looked it up."
	eachWay(t, "a text", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		got := ask(t, r, agent, session, stream, "hi")
		got.want(t, "the run", "COMPLETED", "", ready)
		if !got.counted() {
			t.Errorf("tokens: %+v", got.Metrics)
		}
	})
	eachWay(t, "calls and history", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, "one call").want(t, "the first", "COMPLETED", "tea, for admin", done)
		ask(t, r, agent, session, stream, "two calls").
			want(t, "the second", "COMPLETED", "cake, for admin; tea, for admin", done)
		ask(t, r, agent, session, stream, "hi").want(t, "the third", "COMPLETED", "", ready)
	})
	// The model says "I thought" only if it gets its thoughts back beside the call's result.
	eachWay(t, "thoughts", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		got := ask(t, r, agent, session, stream, "think")
		got.want(t, "the run", "COMPLETED", "cocoa, for admin", "Let me look. I thought and looked.")
		if strings.TrimSpace(got.Reasoning) != "A tool knows." {
			t.Errorf("thoughts: %q", got.Reasoning)
		}
		paused := ask(t, r, agent, session+"-paused", stream, "ponder")
		if paused.Status != "PAUSED" {
			t.Fatalf("the run: %+v", paused)
		}
		confirm(t, r, agent, session+"-paused", stream, paused).
			want(t, "continued", "COMPLETED", "account 8 is gone", "I thought and looked.")
	})
	eachWay(t, "a confirmation", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		paused := ask(t, r, agent, session, stream, "confirm")
		if paused.Status != "PAUSED" || len(paused.Tools) != 1 || string(paused.Tools[0].Args) != `{"id":7}` {
			t.Fatalf("the run: %+v", paused)
		}
		confirm(t, r, agent, session, stream, paused).want(t, "continued", "COMPLETED", "account 7 is gone", done)
	})
	kill()
	eachWay(t, "a server that is away", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, "hi").want(t, "the run", "ERROR", "", "Connection error.")
	})
	start()
	eachWay(t, "a server that is back", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, "one call").want(t, "the run", "COMPLETED", "tea, for admin", done)
	})
	eachWay(t, "too long", apisOn("fixed"), func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, strings.Repeat("long ", 1000)).
			want(t, "the run", "ERROR", "", "exceeds the available context size")
	})
}
