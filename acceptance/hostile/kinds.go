//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// abuse is one kind of abuse: what is sent, and which answers are allowed.
type abuse struct {
	name string
	// allowed are the statuses that are an answer to it.
	allowed []int
	// lasting abuse takes place beside all the others. The others take turns.
	lasting bool
	// limited abuse needs more runs than the pass limits allows a caller, so some of them must be refused.
	limited bool
	do      func(ctx context.Context, a *attacker)
}

// patience is how long the server may hold a connection that does not get on: what package cli allows, and some more.
const patience = time.Minute

// idlePatience is the same for a connection without a request.
const idlePatience = 3 * time.Minute

const runs = "/agents/helper/runs"

// busy are the answers to a caller who sends too much, or to any caller while the server has no room.
var busy = []int{http.StatusTooManyRequests, http.StatusServiceUnavailable}

// refused are the answers to an input that is too large.
var refused = []int{http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity}

// kinds are all kinds of abuse, in the order in which they take turns.
var kinds = []abuse{
	{"bodies that never come, without a token", []int{closed, left}, true, false, missingBody("POST " + runs)},
	{"bodies that never come, on a public route", []int{closed, left}, true, false, missingBody("GET /health")},
	{"bodies that never come, with a token", []int{closed, left}, true, false, missingBodyWithToken},
	{"answers that are never read", []int{closed, left}, true, false, unread},
	{"half headers", []int{closed, left}, true, false, halfHeaders},
	{"idle connections", []int{closed, left}, true, false, idle},
	{"a million wrong topics", refused, false, false, wrongTopics},
	{"4 MB of wrong session ids", refused, false, false, wrongIDs},
	{"1.4 million pairs of a form", refused, false, false, formPairs},
	{"130,000 files", refused, false, false, files},
	{"a message of 9.9 MB", refused, false, false, longMessage},
	{"a state of 8 MB, and many merges", append([]int{http.StatusOK}, append(busy, refused...)...), false, false, states},
	{"name, metadata and summary of 3.5 MB, and lists", []int{200, 201, 413, 422}, false, false, largeSessions},
	{"JSON that is deep", append([]int{http.StatusBadRequest}, refused...), false, false, deepJSON},
	{"ids, methods and keys of 100 KB", []int{400, 401, 403, 404, 405, 413, 414, 422, 431, 501}, false, false, longNames},
	{"spellings of a header with a token of 41 KB", []int{http.StatusOK, http.StatusUnauthorized}, false, false,
		spellings},
	{"refused tokens", []int{http.StatusUnauthorized}, false, false, refusedTokens},
	{"tokens with unknown keys", []int{http.StatusUnauthorized}, false, false, unknownKeys},
	{"merges of memories", append([]int{200, 400, 404, 409, 422, 502}, busy...), false, false, merges},
	{"40 waiters with one Idempotency-Key", append([]int{200, 409}, busy...), false, false, waiters},
	{"300 runs at once", append([]int{200, closed}, busy...), false, true, manyRuns},
	{"60 followers of one run", append([]int{200, 404}, busy...), false, false, followers},
	{"120 background runs", append([]int{200, 202}, busy...), false, true, manyBackground},
	{"more connections than descriptors", []int{closed, http.StatusOK, 503}, false, false, connectionFlood},
}

// promises is a request that promises a body.
const promises = "%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n%s\r\n"

func missingBody(request string) func(context.Context, *attacker) {
	return func(ctx context.Context, a *attacker) {
		a.hold(ctx, 30, fmt.Sprintf(promises, request, ""), false, patience)
	}
}

func missingBodyWithToken(ctx context.Context, a *attacker) {
	a.hold(ctx, 30, fmt.Sprintf(promises, "POST /memories", "Authorization: Bearer "+a.token+"\r\n"), false, patience)
}

func unread(ctx context.Context, a *attacker) {
	together(2, func(i int) {
		request := "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
		if i == 1 {
			request = "GET /agents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + a.token + "\r\n\r\n"
		}
		a.hold(ctx, 10, strings.Repeat(request, 400), true, patience)
	})
}

func halfHeaders(ctx context.Context, a *attacker) {
	a.hold(ctx, 30, "GET /health HTTP/1.1\r\nHost: x\r\nX-Half: ", false, patience)
}

func idle(ctx context.Context, a *attacker) {
	a.hold(ctx, 30, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", false, idlePatience)
}

func wrongTopics(ctx context.Context, a *attacker) {
	body := `{"memory":"x","topics":[` + strings.Repeat("1,", 1_000_000) + `1]}`
	for range a.scale {
		a.send(ctx, "POST", "/memories", asJSON, []byte(body))
	}
	a.send(ctx, "POST", "/memories", asJSON, []byte(`{"memory":"x","topics":[`+strings.Repeat("1,", 5_200_000)+`1]}`))
}

func wrongIDs(ctx context.Context, a *attacker) {
	body := `{"session_types":["agent"],"session_ids":[` + strings.Repeat("1,", 2_000_000) + `1]}`
	for range a.scale {
		a.send(ctx, "DELETE", "/sessions", asJSON, []byte(body))
	}
}

func formPairs(ctx context.Context, a *attacker) {
	for range a.scale {
		a.send(ctx, "POST", runs, asForm, []byte("message=x"+strings.Repeat("&files=", 1_400_000)))
	}
}

func files(ctx context.Context, a *attacker) {
	var body bytes.Buffer
	for range 130_000 {
		body.WriteString("--b\r\nContent-Disposition: form-data; name=\"files\"; filename=a.txt\r\n\r\n\r\n")
	}
	body.WriteString("--b\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nx\r\n--b--\r\n")
	for range a.scale {
		a.send(ctx, "POST", runs, "multipart/form-data; boundary=b", body.Bytes())
	}
}

func longMessage(ctx context.Context, a *attacker) {
	for range a.scale {
		a.run(ctx, "message", noise(9_900_000))
	}
}

// noise is a text of n letters that PostgreSQL can't store in much less.
func noise(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	text := make([]byte, n)
	for i := range text {
		text[i] = letters[rand.IntN(len(letters))] // #nosec G404 -- only its size matters
	}
	return string(text)
}

// run requests a run. fields are names and values of its form.
func (a *attacker) run(ctx context.Context, fields ...string) {
	a.send(ctx, "POST", runs, asForm, form(fields...))
}

// form encodes names and values, and stream=false.
func form(fields ...string) []byte {
	values := url.Values{"stream": {"false"}}
	for pair := range slices.Chunk(fields, 2) {
		values.Set(pair[0], pair[1])
	}
	return []byte(values.Encode())
}

func states(ctx context.Context, a *attacker) {
	large := `{"a":"` + noise(8_000_000) + `"}`
	a.run(ctx, "message", "hello", "session_id", "large", "session_state", large)
	for i := range 10 {
		state := fmt.Sprintf(`{"part%d":%q}`, i, noise(200_000))
		a.run(ctx, "message", "hello", "session_id", "merged", "session_state", state)
	}
	for range 20 * a.scale {
		a.run(ctx, "message", "hello", "session_id", "large")
		a.run(ctx, "message", "hello", "session_id", "merged")
	}
}

func largeSessions(ctx context.Context, a *attacker) {
	text := noise(3_500_000)
	a.send(ctx, "POST", "/sessions?type=agent", asJSON, []byte(`{"session_id":"wide","agent_id":"helper"}`))
	for _, member := range []string{
		`"session_name":"` + text + `"`, `"session_state":{"a":"` + text + `"}`, `"metadata":{"a":"` + text + `"}`,
		`"summary":{"a":"` + text + `"}`,
	} {
		a.send(ctx, "PATCH", "/sessions/wide?type=agent", asJSON, []byte("{"+member+"}"))
	}
	for range 10 * a.scale {
		a.send(ctx, "GET", "/sessions?type=agent&limit=1&sort_by=updated_at", "", nil)
	}
}

func deepJSON(ctx context.Context, a *attacker) {
	for range a.scale {
		for _, deep := range []string{
			strings.Repeat("[", 5_000_000), strings.Repeat(`{"a":`, 1_900_000), `{"topics":` + strings.Repeat("[", 5_000_000),
		} {
			a.send(ctx, "POST", "/memories", asJSON, []byte(deep))
		}
		a.run(ctx, "message", "x", "session_state", strings.Repeat(`{"a":`, 1_000_000))
	}
}

func longNames(ctx context.Context, a *attacker) {
	for range 10 * a.scale {
		for _, size := range []int{60_000, 100_000} {
			long := strings.Repeat("A", size)
			a.send(ctx, "GET", "/agents/"+long, "", nil)
			a.send(ctx, "GET", "/sessions/"+long, "", nil)
			a.send(ctx, long, "/agents", "", nil)
			a.send(ctx, "POST", runs, asForm, form("message", ""), "Idempotency-Key", long)
			a.send(ctx, "GET", "/sessions?session_id="+long+"&status="+long, "", nil)
		}
	}
}

// more is a token of the attacker with more claims.
func (a *attacker) more(claims jwt.MapClaims) string {
	token, err := mint("mallory", claims)
	if err != nil {
		panic(err) // texts
	}
	return token
}

func spellings(ctx context.Context, a *attacker) {
	token := a.more(jwt.MapClaims{"groups": strings.Repeat("g", 30_000)})
	const scheme = "bearer"
	for i := range 300 * a.scale {
		spelling := []byte(scheme)
		for letter := range spelling {
			if i>>letter&1 == 1 {
				spelling[letter] -= 'a' - 'A'
			}
		}
		a.send(ctx, "GET", "/agents", "", nil, "Authorization", string(spelling)+strings.Repeat(" ", 1+i/64)+token)
	}
}

func refusedTokens(ctx context.Context, a *attacker) {
	for i := range 3_000 * a.scale {
		a.send(ctx, "GET", fmt.Sprintf("/agents/A%d", i), "", nil, "Authorization", "Bearer x")
	}
}

func unknownKeys(ctx context.Context, a *attacker) {
	for i := range 1_000 * a.scale {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "mallory"})
		token.Header["kid"] = fmt.Sprint(i)
		text, err := token.SignedString([]byte("another key of 32 bytes, or more"))
		if err != nil {
			panic(err) // texts
		}
		a.send(ctx, "GET", "/agents", "", nil, "Authorization", "Bearer "+text)
	}
}

func merges(ctx context.Context, a *attacker) {
	for range 20 {
		a.send(ctx, "POST", "/memories", asJSON, []byte(`{"memory":"`+strings.Repeat("x", 4_900)+`"}`))
	}
	together(20*a.scale, func(int) {
		a.send(ctx, "POST", "/optimize-memories", asJSON, []byte(`{"user_id":"mallory","apply":false}`))
	})
}

func waiters(ctx context.Context, a *attacker) {
	for i := range a.scale {
		key := fmt.Sprintf("waiters-%d", i)
		together(41, func(int) {
			a.send(ctx, "POST", runs, asForm, form("message", slowRun), "Idempotency-Key", key)
		})
	}
}

func manyRuns(ctx context.Context, a *attacker) {
	for range a.scale {
		together(300, func(int) { a.run(ctx, "message", slowRun) })
	}
}

func followers(ctx context.Context, a *attacker) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { a.run(ctx, "message", slowRun, "stream", "true", "session_id", "followed") })
	var list []struct {
		ID string `json:"run_id"`
	}
	for len(list) == 0 && harness.Wait(ctx, 50*time.Millisecond) == nil {
		_ = json.Unmarshal([]byte(a.send(ctx, "GET", runs+"?session_id=followed", "", nil)), &list)
	}
	if len(list) == 0 {
		return // refused
	}
	together(60, func(int) {
		a.send(ctx, "POST", runs+"/"+url.PathEscape(list[0].ID)+"/resume", asForm, form("session_id", "followed"))
	})
}

func manyBackground(ctx context.Context, a *attacker) {
	for range 120 * a.scale {
		a.run(ctx, "message", slowRun, "background", "true")
	}
}

func connectionFlood(ctx context.Context, a *attacker) {
	ctx, stop := context.WithTimeout(ctx, time.Duration(2+a.scale)*time.Second)
	defer stop()
	together(600, func(int) {
		conn, err := a.dial(ctx)
		if err != nil {
			a.saw(closed)
			return
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
		_, _ = io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		if n, _ := io.Copy(io.Discard, conn); n > 0 {
			a.saw(http.StatusOK)
		} else {
			a.saw(closed)
		}
	})
}
