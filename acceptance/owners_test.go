package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// twoIssuers is a directory with a keyway.yaml and the keys of two issuers, ours and theirs.
type twoIssuers struct {
	dir    string
	vars   map[string]string
	tokens map[string]string
}

func newTwoIssuers(t *testing.T) twoIssuers {
	t.Helper()
	ours, theirs := rsaForge("RS256", issuerRSA()), rsaForge("RS256", attackerRSA())
	o := twoIssuers{dir: t.TempDir(), vars: map[string]string{"DATABASE_URL": storetest.EmptyURL(t)}}
	for name, f := range map[string]forge{"ours.json": ours, "theirs.json": theirs} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(`{"keys":[`+f.jwk+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const scopes = `["sessions:read","sessions:write"]`
	o.tokens = map[string]string{
		"ann":   ours.token(payload("iss", `"https://ours"`, "scopes", scopes)),
		"other": theirs.token(payload("iss", `"https://theirs"`, "scopes", scopes)),
	}
	return o
}

// The entries of the file.
const (
	ours          = `{jwks_file: ours.json, issuer: "https://ours"}`
	theirs        = `{jwks_file: theirs.json, issuer: "https://theirs"}`
	oursUnnamed   = `{jwks_file: ours.json}`
	theirsUnnamed = `{jwks_file: theirs.json}`
)

// write writes a file with these entries, and perhaps more of auth.
func (o twoIssuers) write(t *testing.T, more string, entries ...string) {
	t.Helper()
	text := fmt.Sprintf(`{id: fort, agents: [{id: a, model: "demo:a"}], auth: {algorithms: [RS256], %s keys: [%s]}}`,
		more, strings.Join(entries, ", "))
	if err := os.WriteFile(filepath.Join(o.dir, "keyway.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// begin starts a server and does not wait for it.
func (o twoIssuers) begin(t *testing.T, flags ...string) *server {
	t.Helper()
	flags = append(flags, "--config", filepath.Join(o.dir, "keyway.yaml"), "--data", filepath.Join(o.dir, "data"))
	r := serve(t, process.Keyway, o.vars, flags...)
	r.Tokens = o.tokens
	return r
}

// serve starts a server that reloads its file.
func (o twoIssuers) serve(t *testing.T) *server {
	t.Helper()
	r := o.begin(t, "--dev")
	r.URL = r.AwaitLog(`keyway \S+ at (http://\S+)`)[1]
	return r
}

// wantSessions checks how many sessions a caller sees.
func wantSessions(t *testing.T, r *server, what, caller string, n int) {
	t.Helper()
	r.Get(caller, "/sessions").Want(t, what+": "+caller, 200, fmt.Sprintf(`"total_count":%d,`, n))
}

// store13 gives ann 13 sessions.
func store13(t *testing.T, r *server) {
	t.Helper()
	for i := range 13 {
		r.json("ann", "POST", "/sessions", fmt.Sprintf(`{"session_id":"s%d","agent_id":"a"}`, i)).
			Want(t, "a session of ann", 201)
	}
}

func TestASecondIssuerLeavesEverybodysSessions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, ours, theirs string }{
		{"both named", ours, theirs},
		{"a key file first", oursUnnamed, theirs},
		{"a key file later", ours, theirsUnnamed},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := newTwoIssuers(t)
			o.write(t, "", row.ours)
			r := o.serve(t)
			store13(t, r)
			wantSessions(t, r, "one issuer", "ann", 13)
			if err := r.Stop(); err != nil {
				t.Fatal(err)
			}
			o.write(t, "", row.ours, row.theirs)
			r = o.serve(t)
			wantSessions(t, r, "restarted with two", "ann", 13)
			wantSessions(t, r, "restarted with two", "other", 0)
			for n, entries := range [][]string{{row.theirs, row.ours}, {row.ours}, {row.ours, row.theirs}} {
				o.write(t, "", entries...)
				r.AwaitLog(fmt.Sprintf(`(?s)(keyway.yaml changed and is in force.*){%d}`, n+1))
				wantSessions(t, r, fmt.Sprint("reloaded with ", entries), "ann", 13)
			}
			wantSessions(t, r, "reloaded", "other", 0)
			o.write(t, "", row.theirs)
			r.AwaitLog(`(?s)(keyway.yaml changed and is in force.*){4}`)
			wantSessions(t, r, "with the second one alone", "other", 0)
		})
	}
}

// The only entry names no issuer, and then two do: nobody but the operator knows whose the 13 sessions are.
func TestAFileThatCouldRenameOwnersStaysOutOfForce(t *testing.T) {
	t.Parallel()
	o := newTwoIssuers(t)
	o.write(t, "", oursUnnamed)
	r := o.serve(t)
	store13(t, r)
	o.write(t, "", ours, theirs)
	r.AwaitLog(`(?s)set auth\.home_issuer to the issuer.*the previous configuration stays in force`)
	wantSessions(t, r, "the file before", "ann", 13)
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	r = o.begin(t)
	r.Judged.Store(true)
	r.AwaitLog(`set auth\.home_issuer to the issuer`)
	if err := r.Ended(); err == nil {
		t.Error("the server has ended without an error")
	}
	o.write(t, `home_issuer: "https://ours",`, ours, theirs)
	r = o.serve(t)
	wantSessions(t, r, "as the operator says", "ann", 13)
	wantSessions(t, r, "as the operator says", "other", 0)
}

// An earlier version renamed everybody when the second issuer came. The server runs while the operator moves the data.
func TestOwnersWhoWereRenamedGetTheirSessionsBack(t *testing.T) {
	t.Parallel()
	o := newTwoIssuers(t)
	o.write(t, `home_issuer: none,`, ours, theirs)
	r := o.serve(t)
	store13(t, r)
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	o.write(t, "", ours)
	r = o.serve(t)
	wantSessions(t, r, "named with their issuer", "ann", 13)
	config := filepath.Join(o.dir, "keyway.yaml")
	if out := process.Keyway.Prints(t, o.vars, "owners", "move", "--from", "https://ours", "--to", "home", "--apply",
		"--config", config); !strings.Contains(out, "moved: 1 owner, 13 sessions") {
		t.Error(out)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) { // 15, and a slow machine
		got := r.Get("ann", "/sessions")
		if strings.Contains(got.Body, `"user_id":"ann"`) && strings.Contains(got.Body, `"total_count":13,`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not follow: %s", got.Body)
		}
	}
	o.write(t, "", ours, theirs)
	r.AwaitLog(`keyway.yaml changed and is in force`)
	wantSessions(t, r, "with two issuers", "ann", 13)
	wantSessions(t, r, "with two issuers", "other", 0)
}
