package functions_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// migrating is the migrate function and a stand-in for CloudFormation, which receives its answers.
type migrating struct {
	function
	reports chan report
	url     string
}

// report is an answer for CloudFormation.
type report struct {
	Status, Reason string
	ID             string `json:"PhysicalResourceId"`
	Logical        string `json:"LogicalResourceId"`
	Data           map[string]any
}

func migrate(t *testing.T, configuration string, env ...string) migrating {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keyway.json"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	m := migrating{reports: make(chan report, 1)}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var got report
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &got)
		}
		if err != nil || r.Method != http.MethodPut {
			t.Errorf("%s %s: %v", r.Method, data, err)
		}
		m.reports <- got
	}))
	t.Cleanup(s.Close)
	m.url = s.URL
	m.function = function{lambdatest.Start(t, filepath.Join(programs, "migrate"),
		append(env, "LAMBDA_TASK_ROOT="+dir)...), t}
	return m
}

// resource sends CloudFormation's event and returns the report.
func (m migrating) resource(kind, id string) report {
	m.t.Helper()
	event, err := json.Marshal(map[string]any{
		"RequestType": kind, "ResponseURL": m.url, "StackId": "s", "RequestId": "r", "ResourceType": "Custom::Schema",
		"LogicalResourceId": "Schema", "PhysicalResourceId": id,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	a := m.Invoke(event, time.Minute)
	if body := a.Body(); a.Kind != "response" {
		m.t.Fatalf("%s %s", a.Kind, body)
	}
	return <-m.reports
}

func TestDeploymentMigratesSchema(t *testing.T) {
	t.Parallel()
	m := migrate(t, keyway, "DATABASE_URL="+storetest.EmptyURL(t))
	first := m.resource("Create", "")
	if first.Status != "SUCCESS" || first.ID != "test-os/keyway" || first.Logical != "Schema" ||
		first.Data["from"] != 0.0 || first.Data["to"] == 0.0 {
		t.Errorf("%+v", first)
	}
	again := m.resource("Update", first.ID)
	if again.Status != "SUCCESS" || again.ID != first.ID || again.Data["from"] != first.Data["to"] {
		t.Errorf("%+v", again)
	}
	if gone := m.resource("Delete", first.ID); gone.Status != "SUCCESS" || gone.ID != first.ID {
		t.Errorf("%+v", gone)
	}
	// The schema still exists, and the function can be invoked by hand.
	a := m.Invoke([]byte("{}"), time.Minute)
	if body := string(a.Body()); a.Kind != "response" || !strings.Contains(body, `"from":`) ||
		strings.Contains(body, `"from":0`) {
		t.Errorf("%s %s", a.Kind, body)
	}
}

// A deployment that fails after its migration is rolled back by the previous release's program.
func TestRollbackKeepsCompatibleNewerSchema(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	m := migrate(t, keyway, "DATABASE_URL="+url)
	made := m.resource("Create", "")
	query(t, url, "UPDATE keyway.schema_version SET version = 99")
	back := m.resource("Update", made.ID)
	if back.Status != "SUCCESS" || back.ID != made.ID || back.Data["newer"] != true || back.Data["from"] != 99.0 ||
		back.Data["to"] != 99.0 || made.Data["newer"] != false {
		t.Errorf("%+v after %+v", back, made)
	}
	m.WaitForLog(`"newer":true`)
	if version := query(t, url, "SELECT version FROM keyway.schema_version"); version != "99" {
		t.Errorf("the schema is at %s", version)
	}
	other := migrate(t, strings.Replace(keyway, `"id":"test-os"`, `"id":"another-os"`, 1), "DATABASE_URL="+url)
	if got := other.resource("Update", made.ID); got.Status != "FAILED" ||
		!strings.Contains(got.Reason, `belongs to the OS "test-os"`) {
		t.Errorf("the schema of another OS: %+v", got)
	}
	query(t, url, "UPDATE keyway.schema_version SET oldest = 98")
	if got := m.resource("Update", made.ID); got.Status != "FAILED" ||
		!strings.Contains(got.Reason, "is at version 99, which needs a Keyway for version 98 or later") {
		t.Errorf("an incompatible schema: %+v", got)
	}
}

// An earlier release's function works with the newer schema, or answers why it can't.
func TestFunctionWorksWithCompatibleNewerSchema(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	list := request{method: "GET", path: "/sessions?type=agent", scopes: everything}
	query(t, d.owner, "UPDATE keyway.schema_version SET version = 99")
	d.start("sessions").ask(list).want(t, "a compatible schema", 200)
	query(t, d.owner, "UPDATE keyway.schema_version SET oldest = 98")
	d.start("sessions").ask(list).want(t, "an incompatible schema", 503, "a Keyway for version 98 or later",
		"run the newer Keyway")
}

// query executes SQL, and returns the first column of the first row, if any.
func query(t *testing.T, url, sql string) (first string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // also called in a cleanup
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if last := results[len(results)-1]; len(last.Rows) > 0 {
		first = string(last.Rows[0][0])
	}
	return first
}

// A deployment fails with PostgreSQL's error, or with the error of the configuration.
func TestDeploymentFailsWithReason(t *testing.T) {
	t.Parallel()
	other := strings.Replace(keyway, `"id":"test-os"`, `"id":"another-os"`, 1)
	for name, row := range map[string]struct {
		configuration, env, want string
	}{
		"no database": {keyway, "DATABASE_URL=postgres://ann:hunter2@127.0.0.1:1/db",
			"the database can't be reached; check database.url (or DATABASE_URL): "},
		"another OS's": {other, "DATABASE_URL=" + storetest.URL(t),
			`the database schema "keyway" belongs to the OS "test-os", not to "another-os"`},
		"no such database": {keyway, "DATABASE_URL=" + strings.Replace(storetest.URL(t), "/test_", "/none_", 1),
			"does not exist (SQLSTATE 3D000)"},
		"no address": {strings.Replace(keyway, `"database":{"url":"${DATABASE_URL}"},`, "", 1), "X=",
			"no database is configured; set the template's parameter Database, or DATABASE_URL, or DATABASE_SECRET"},
		"a variable": {keyway, "AWS_LAMBDA_FUNCTION_NAME=migrate",
			"database.url: ${DATABASE_URL} is unset or empty; set the template's parameter Database, or DATABASE_URL in " +
				"the function's environment"},
		"a broken file": {`{"id":1}`, "X=", "id: is a number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := migrate(t, row.configuration, row.env)
			if got := m.resource("Create", ""); got.Status != "FAILED" || !strings.Contains(got.Reason, row.want) ||
				strings.Contains(got.Reason, "hunter2") || got.ID == "" {
				t.Errorf("%+v, want %s", got, row.want)
			}
			a := m.Invoke([]byte("{}"), time.Minute)
			if body := string(a.Body()); a.Kind != "error" || !strings.Contains(body, "errorMessage") ||
				strings.Contains(body+m.Stderr.String(), "hunter2") {
				t.Errorf("by hand: %s %s", a.Kind, body)
			}
		})
	}
}
