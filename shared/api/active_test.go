package api_test

import (
	"testing"
)

func TestOnlyAdministratorsListAndCancelRunsOfAllUsers(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, request := range []string{
		"GET /active-runs", "DELETE /active-runs?user_id=ann", "DELETE /active-runs?all=true",
	} {
		s.do("ann "+request, "").want(t, 403)
		s.do("admin "+request, "").want(t, 200)
	}
}

func TestCancellingTheRunsOfOneUserLeavesThoseOfOthers(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	paused, bobs := s.run("ann", "s", "open"), s.run("bob", "b", "open")
	s.do("admin GET /active-runs?limit=1", "").want(t, 200,
		`{"data":[{"run_id":"`+paused+`","session_id":"s","agent_id":"a",`+
			`"user_id":"ann","status":"PAUSED","created_at":"`, `"attempt":1}`, `"total_count":2`)
	s.do("admin GET /active-runs?user_id=ann&agent_id=b", "").want(t, 200, `"data":[]`)
	s.do("admin DELETE /active-runs?user_id=ann&agent_id=b", "").want(t, 200, `{"cancelled":0,"more":false}`)
	s.do("admin DELETE /active-runs?user_id=ann&agent_id=a", "").want(t, 200, `{"cancelled":1,"more":false}`)
	s.do("ann GET /agents/a/runs/"+paused+"?session_id=s", "").want(t, 200, `"status":"CANCELLED"`)
	s.do("bob GET /agents/a/runs/"+bobs+"?session_id=b", "").want(t, 200, `"status":"PAUSED"`)
	s.do("admin DELETE /active-runs?user_id=ann", "").want(t, 200, `{"cancelled":0,"more":false}`)
	s.do("admin DELETE /active-runs?all=true", "").want(t, 200, `{"cancelled":1,"more":false}`)
	s.do("admin GET /active-runs", "").want(t, 200, `"data":[]`)
}

func TestASessionClaimDoesNotLimitAnAdministratorsActiveRuns(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	s.run("ann", "s", "open")
	s.do("bound-admin GET /active-runs", "").want(t, 200, `"user_id":"ann","status":"PAUSED"`, `"total_count":1`)
	s.do("bound-admin DELETE /active-runs?all=true", "").want(t, 200, `{"cancelled":1,"more":false}`)
}

func TestCancellingTheRunsOfOneUserStopsTheModel(t *testing.T) {
	t.Parallel()
	s := newService(t, waitFor(make(chan struct{})))
	ended := make(chan reply, 1)
	go func() { ended <- s.do("ann POST /agents/a/runs", "message=m&stream=false&session_id=s") }()
	s.running("s")
	s.do("admin DELETE /active-runs?user_id=ann", "").want(t, 200, `{"cancelled":1,"more":false}`)
	(<-ended).want(t, 200, `"status":"CANCELLED"`)
}

func TestARequestToCancelRunsMustSayWhose(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	s.run("ann", "s", "open")
	for _, query := range []string{"", "?agent_id=a", "?user_id=", "?all=false", "?user_id=ann&all=true"} {
		s.do("admin DELETE /active-runs"+query, "").want(t, 422, `"loc":["query","user_id"]`)
	}
	s.do("admin GET /active-runs?limit=101", "").want(t, 422, "limit")
	s.do("admin GET /active-runs", "").want(t, 200, `"status":"PAUSED"`)
}
