package functions_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// The authorizer and API Gateway know no revocation. Each function with a database refuses the token itself: one that
// starts, at once, and one that runs, within ten seconds.
func TestFunctionsRefuseARevokedToken(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	asks := map[string]request{
		"sessions": {method: "GET", path: "/sessions?type=agent", scopes: everything, jti: "leaked"},
		"memories": {method: "GET", path: "/memories", scopes: everything, jti: "leaked"},
		"runs":     {method: "GET", path: "/agents/a/runs?session_id=none", scopes: everything, jti: "leaked"},
	}
	accepted := map[string]int{"sessions": 200, "memories": 200, "runs": 404}
	warm := map[string]function{}
	for name, r := range asks {
		warm[name] = d.start(name)
		warm[name].ask(r).want(t, name, accepted[name])
	}
	revoke := request{method: "POST", path: "/revocations", scopes: "agent_os:admin", sub: "root",
		headers: map[string]string{"Content-Type": "application/json"}, body: `{"jti":"leaked","note":"in a log"}`}
	asOther := revoke
	asOther.scopes = everything
	warm["sessions"].ask(asOther).want(t, "revoked by another caller", 403, "agent_os:admin")
	warm["sessions"].ask(revoke).want(t, "revoked", 201, `"jti":"leaked"`)
	warm["sessions"].ask(asks["sessions"]).want(t, "in the same process", 401, "Token has been revoked")
	for name, r := range asks {
		d.start(name).ask(r).want(t, "a cold "+name, 401, "Token has been revoked")
		end := time.Now().Add(11 * time.Second)
		for warm[name].ask(r).StatusCode != 401 && time.Now().Before(end) {
			time.Sleep(200 * time.Millisecond)
		}
		warm[name].ask(r).want(t, "a warm "+name, 401, "Token has been revoked")
		r.jti = "another"
		warm[name].ask(r).want(t, "another token", accepted[name])
	}
	// These have no database: the token is valid there until it expires.
	d.start("agents").ask(request{method: "GET", path: "/agents", scopes: everything, jti: "leaked"}).want(t,
		"the agents", 200)
	d.start("config").ask(request{method: "GET", path: "/config", scopes: everything, jti: "leaked"}).want(t,
		"the configuration", 200)
	undo := revoke
	undo.method, undo.body = "DELETE", `{"jti":"leaked"}`
	warm["sessions"].ask(undo).want(t, "undone", 204)
	warm["sessions"].ask(asks["sessions"]).want(t, "after that", 200)
}

// Without its database a function refuses every token, and never accepts one that may have been revoked.
func TestFunctionsRefuseAllTokensWithoutTheListOfRevocations(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	query(t, d.owner, "ALTER TABLE keyway.revocations RENAME TO hidden")
	for name, path := range map[string]string{"sessions": "/sessions", "memories": "/memories",
		"runs": "/agents/a/runs?session_id=s"} {
		d.start(name).ask(request{method: "GET", path: path, scopes: everything}).want(t, name, 503)
	}
}

func TestWorkerEndsTheRunOfARevokedToken(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	db, err := store.Open(store.Options{URL: d.db, Schema: storetest.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := store.Run{
		RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING", Input: "hello",
		CreatedAt: time.Now().UTC(), Background: true,
		Caller: json.RawMessage(`{"sub":"ann","scopes":["agents:run"],"path":"/agents/a/runs","jti":"leaked",` +
			`"iat":1700000000}`),
	}
	if _, err := db.BeginRun(t.Context(), r, store.BeginOptions{}); err != nil {
		t.Fatal(err)
	}
	leaked := store.Revocation{TokenID: "leaked", MadeAt: time.Now()}
	if _, err := db.Revoke(t.Context(), leaked, store.MaxRevocations); err != nil {
		t.Fatal(err)
	}
	d.start("worker").deliver([]string{r.RunID.String()})
	got, err := db.Run(t.Context(), store.Viewer{All: true}, store.RunQuery{RunID: r.RunID.String()})
	if err != nil || got.Status != "ERROR" || *got.Content != "The run was stopped because its token was revoked" ||
		len(d.model.Requests()) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
