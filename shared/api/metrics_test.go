package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMetricsShowEachCallerTheirOwnRunsAndAnAdministratorAll(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.run("ann", "s", "one")
	s.run("ann", "s", "two")
	s.run("bob", "t", "three")
	today := time.Now().UTC().Format(time.DateOnly)
	day := func(user string, runs, sessions, users, in, out int) string {
		return fmt.Sprintf(`{"id":"%s_%sdaily","agent_runs_count":%d,"agent_sessions_count":%d,"team_runs_count":0,`+
			`"team_sessions_count":0,"workflow_runs_count":0,"workflow_sessions_count":0,"users_count":%d,`+
			`"token_metrics":{"input_tokens":%d,"output_tokens":%d,"total_tokens":%d},"model_metrics":`, today, user, runs,
			sessions, users, in, out, in+out)
	}
	s.do("ann GET /metrics", "").want(t, 200, `{"metrics":[`+day("ann_", 2, 1, 1, 20, 10), `"date":"`+today+`T00:00:00Z"`,
		`"updated_at":"`+today)
	s.do("ann GET /metrics?user_id=bob", "").want(t, 200, `{"metrics":[],"updated_at":null}`)
	s.do("admin GET /metrics", "").want(t, 200, `{"metrics":[`+day("", 3, 2, 2, 30, 15))
	s.do("admin GET /metrics?user_id=bob", "").want(t, 200, `{"metrics":[`+day("bob_", 1, 1, 1, 10, 5))
	s.do("admin GET /metrics?starting_date=2020-01-01&ending_date=2020-03-01", "").want(t, 200, `{"metrics":[]`)
	s.do("ann POST /metrics/refresh", "").want(t, 200, `[`+day("ann_", 2, 1, 1, 20, 10))
	s.do("ann POST /metrics/refresh?background=true", "").want(t, 202, `{"status":"started","message":"`)
	s.do("ann GET /metrics/refresh/status", "").want(t, 200, `{"status":"completed","started_at":null,`)
	s.do("bound GET /metrics", "").want(t, 200, `{"metrics":[]`)
	s.do("noname GET /metrics", "").want(t, 403, "missing a user identity")
	s.do("noname POST /metrics/refresh?background=true", "").want(t, 403, "missing a user identity")
	s.do("one GET /metrics", "").want(t, 403, `"missing":["metrics:read"]`)
	s.do("one POST /metrics/refresh", "").want(t, 403, `"missing":["metrics:write"]`)
	s.do("ann GET /metrics?db_id=other", "").want(t, 404, "No database found")
}

func TestUsageIsForAdministrators(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.run("ann", "s", "one")
	s.run("bob", "t", "two")
	today := time.Now().UTC().Format(time.DateOnly)
	s.do("admin GET /usage", "").want(t, 200, `{"data":[{"day":"`+today+`","agent_id":"a","user_id":"ann","model":"m-1",`+
		`"model_provider":"Test","runs":1,"input_tokens":10,"output_tokens":5,"cost":null},`, `"user_id":"bob"`,
		`"meta":{"page":1,"limit":100,"total_pages":1,"total_count":2`)
	bobs := s.do("admin GET /usage?user_id=bob&agent_id=a&limit=1", "").want(t, 200, `"user_id":"bob"`)
	if strings.Contains(bobs.Body.String(), "ann") {
		t.Errorf("%s", bobs.Body)
	}
	s.do("ann GET /usage", "").want(t, 403, `"missing":["agent_os:admin"]`)
	s.do("admin GET /usage?limit=1001", "").want(t, 422, `"loc":["query","limit"]`)
}

func TestTheDaysOfMetricsAreBounded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, path := range []string{"/metrics", "/usage"} {
		for query, want := range map[string]string{
			"starting_date=2026-01-01&ending_date=2026-04-03": `"loc":["query","starting_date"],` +
				`"msg":"Value error, at most 92 days are accepted, not 93"`,
			"starting_date=1970-01-01": `Value error, at most 92 days are accepted, not `,
			"starting_date=today": `"loc":["query","starting_date"],"msg":"Input should be a valid date in the ` +
				`format YYYY-MM-DD"`,
			"ending_date=2026-02-30": `"loc":["query","ending_date"],"msg":"Input should be a valid date in the format`,
			"ending_date=0000-01-01": `"loc":["query","ending_date"],"msg":"Input should be a valid date in the format`,
		} {
			s.do("admin GET "+path+"?"+query, "").want(t, 422, want)
		}
		s.do("admin GET "+path+"?starting_date=2026-01-01&ending_date=2026-04-02", "").want(t, 200)
		s.do("admin GET "+path+"?starting_date=2026-01-02&ending_date=2026-01-01", "").want(t, 200, `:[]`)
		s.do("admin GET "+path+"?ending_date=9999-12-31", "").want(t, 200, `:[]`)
	}
}
