package acceptance

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
)

// revocationTakes is how long a revocation takes to be in force: the age of a server's copy of the list, a second for
// streams, and the time of a slow machine.
const revocationTakes = 15 * time.Second

// awaitRefusal sends a request until its token is refused.
func (r *server) awaitRefusal(sub, path string) {
	r.t.Helper()
	for end := time.Now().Add(revocationTakes); ; time.Sleep(100 * time.Millisecond) {
		got := r.Get(sub, path)
		if got.Status == 401 {
			got.Want(r.t, "a revoked token", 401, `"detail":"Token has been revoked"`, `"hint":"Get a new token.`)
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s is still answered %d", path, got.Status)
		}
	}
}

// The token of ann leaks. The operator revokes what was issued until now with the command, while the server runs.
func TestALeakedTokenStops(t *testing.T) {
	t.Parallel()
	model, release := heldModel(t)
	r := start(t, "quickstart", model)
	vars := map[string]string{"DATABASE_URL": r.DB, "JWT_VERIFICATION_KEY": config.PublishedSecret}
	keyway := func(args ...string) string {
		t.Helper()
		file := process.Path("examples/quickstart/keyway.yaml")
		return process.Keyway.Prints(t, vars, append(args, "--config", file)...)
	}
	run := r.startStream("s", "first")
	followed := r.Open("ann", "POST", "/agents/assistant/runs/"+run.runID+"/resume", nil)
	defer followed.Body.Close()
	events := bufio.NewReader(followed.Body)
	if line, err := events.ReadString('\n'); err != nil || followed.StatusCode != 200 {
		t.Fatalf("%s %s %v", followed.Status, line, err)
	}
	r.Get("ann", "/sessions").Want(t, "before", 200)
	if got := keyway("revoke", "--sub", "ann", "--note", "in a log"); !strings.HasPrefix(got,
		"revoked: the tokens of the subject ann that were issued before ") {
		t.Errorf("the command prints %s", got)
	}
	for _, path := range []string{"/sessions", "/agents", "/memories", "/agents/assistant/runs/" + run.runID +
		"?session_id=s"} {
		r.awaitRefusal("ann", path)
	}
	rest, err := io.ReadAll(events)
	if err != nil || !strings.Contains(string(rest), `"error":"Token has been revoked"`) {
		t.Errorf("the stream that follows the run ends with %s, %v", rest, err)
	}
	close(release)
	r.Get("bob", "/sessions").Want(t, "another user", 200)

	// A token that was issued after the revocation is a new one. iat has whole seconds.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		r.Tokens["ann, later"] = keyway("token", "--sub", "ann", "--scopes", "sessions:read,agents:read")
		if r.Get("ann, later", "/sessions").Status == 200 || time.Now().After(end) {
			break
		}
	}
	r.Get("ann, later", "/sessions").Want(t, "a later token", 200)
	r.Get("ann", "/sessions").Want(t, "the leaked token", 401)

	// An administrator does the same over HTTP, and this server applies it at once.
	r.Get("bob", "/revocations").Want(t, "a caller who is no administrator", 403)
	r.Get("admin", "/revocations").Want(t, "the list", 200, `"sub":"ann"`, `"note":"in a log"`)
	r.Call("admin", "POST", "/revocations", strings.NewReader(`{"sub":"bob"}`), "Content-Type", "application/json").Want(t,
		"revoked by an administrator", 201)
	r.Get("bob", "/sessions").Want(t, "bob's token", 401, "Token has been revoked")
	r.Call("admin", "DELETE", "/revocations", strings.NewReader(`{"sub":"bob"}`), "Content-Type", "application/json").
		Want(t, "undone by an administrator", 204)
	r.Get("bob", "/sessions").Want(t, "bob's token again", 200)
	keyway("revoke", "--undo", "--sub", "ann")
	for end := time.Now().Add(revocationTakes); r.Get("ann", "/sessions").Status != 200; {
		if time.Now().After(end) {
			t.Fatal("the token is refused after the undo")
		}
		time.Sleep(100 * time.Millisecond)
	}
}
