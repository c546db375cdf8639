package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/wire"
)

func TestOnlyAdministratorsExportAndEraseTheDataOfAUser(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.remember("ann", "tea")
	for _, request := range []string{"GET /user-data?user_id=ann", "DELETE /user-data?user_id=ann"} {
		s.do("ann "+request, "").want(t, 403)
		s.do("bob "+request, "").want(t, 403)
		s.do("admin "+request, "").want(t, 200)
	}
}

func TestARequestForTheDataOfAUserMustSayWhose(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, query := range []string{"", "?user_id=", "?user_id=" + strings.Repeat("x", 1025)} {
		s.do("admin GET /user-data"+query, "").want(t, 422, `"loc":["query","user_id"]`)
		s.do("admin DELETE /user-data"+query, "").want(t, 422, `"loc":["query","user_id"]`)
	}
	for _, cursor := range []string{"x", "memory~0~0~eA", "session~0~0~AA"} {
		s.do("admin GET /user-data?user_id=ann&cursor="+cursor, "").want(t, 422, `"loc":["query","cursor"]`)
	}
}

// pages reads all pages of a user's data.
func (s *service) pages(user string) (lines []wire.UserLine, sizes []int) {
	s.t.Helper()
	for cursor := ""; ; {
		got := s.do("admin GET /user-data?user_id="+user+"&cursor="+cursor, "").want(s.t, 200)
		if got.Header().Get("Content-Type") != "application/jsonl" {
			s.t.Error(got.Header())
		}
		sizes = append(sizes, got.Body.Len())
		var l wire.UserLine
		for text := range strings.Lines(got.Body.String()) {
			if l = (wire.UserLine{}); json.Unmarshal([]byte(text), &l) != nil || l.Kind == "" {
				s.t.Fatalf("the line %s", text)
			}
			lines = append(lines, l)
		}
		switch cursor = l.Cursor; {
		case l.Kind == wire.UserLineEnd && cursor == "":
			return lines, sizes
		case l.Kind != wire.UserLineNext || cursor == "":
			s.t.Fatalf("the last line of a page is %+v", l)
		}
	}
}

func TestTheDataOfAUserIsReadPageByPage(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for i := range 12 { // each run has about 1 MB
		s.run("ann", fmt.Sprint("s", i), strings.Repeat("m", 1<<19))
	}
	s.remember("ann", "tea")
	s.remember("bob", "rum")
	lines, sizes := s.pages("ann")
	n := map[string]int{}
	for _, l := range lines {
		n[l.Kind]++
		if strings.Contains(string(l.Data), "rum") {
			t.Errorf("another user's data: %s", l.Data)
		}
	}
	if fmt.Sprint(n) != fmt.Sprintf("map[end:1 memory:1 next:%d run:12 session:12]", len(sizes)-1) || len(sizes) < 3 {
		t.Errorf("%v on %d pages", n, len(sizes))
	}
	for _, size := range sizes {
		if size > 5<<20 {
			t.Errorf("a page has %d bytes", size)
		}
	}
	if lines, _ := s.pages("nobody"); len(lines) != 1 {
		t.Errorf("%+v", lines)
	}
}

func TestAnAdministratorErasesAUserWithRepeatedRequests(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	paused := s.run("ann", "s", "open")
	s.remember("ann", "tea")
	s.remember("bob", "rum")
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		`INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
			SELECT 'ann', 'more' || n, now(), now() FROM generate_series(1, 1500) n`,
		`INSERT INTO keyway.memories (memory_id, owner, memory, topics, created_at, updated_at)
			SELECT gen_random_uuid(), 'ann', 'note ' || n, '{}', now(), now() FROM generate_series(1, 20500) n`,
		`UPDATE keyway.runs SET status = 'RUNNING', lease_until = now() + interval '1 minute'`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	s.do("admin DELETE /user-data?user_id=ann", "").want(t, 409, "The user has runs in progress (1)")
	if _, err := conn.Exec(t.Context(), `UPDATE keyway.runs SET status = 'PAUSED', lease_until = NULL`); err != nil {
		t.Fatal(err)
	}
	s.do("admin DELETE /user-data?user_id=ann", "").want(t, 200, `{"sessions":1000,"runs":`,
		`"memories":20000,"more":true}`)
	s.do("admin DELETE /user-data?user_id=ann", "").want(t, 200, `{"sessions":501,"runs":`,
		`"memories":501,"more":false}`)
	s.do("admin DELETE /user-data?user_id=ann", "").want(t, 200, `{"sessions":0,"runs":0,"memories":0,"more":false}`)
	s.do("ann GET /agents/a/runs/"+paused+"?session_id=s", "").want(t, 404)
	if lines, _ := s.pages("ann"); len(lines) != 1 {
		t.Errorf("%d lines are left", len(lines))
	}
	s.do("bob GET /memories", "").want(t, 200, "rum")
}

func TestWhoReadsOrErasesTheDataOfAUserIsAudited(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	a.remember("ann", "tea")
	ann := hashes("owner", "ann")
	a.wantLine("admin", "GET /user-data?user_id=ann", "", line{Admin: true, Action: "export_user_data",
		Route: "GET /user-data", Owners: ann, Status: 200})
	a.wantLine("admin", "DELETE /user-data?user_id=ann", "", line{Admin: true, Action: "erase_user_data",
		Route: "DELETE /user-data", Owners: ann, Status: 200})
}
