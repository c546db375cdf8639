# Part of sam-local.sh. It sends requests to sam local start-api, which calls the authorizer
# for each request and forwards the requests that its policy allows. The texts of 401 and 403
# are sam local's own, because it ignores the template's GatewayResponses. It answers 502
# where API Gateway answers 401 to a rejected token.
count=0
# want STATUS TEXT CURL… sends a request with curl, and fails unless the answer has the status and contains the text. The
# answer is in $work/answer afterwards.
want() {
  local status=$1 text=$2 got
  shift 2
  got=$(curl -sS -m 300 -o "$work/answer" -w '%{http_code}' "$@")
  [ "$got" = "$status" ] && { [ -z "$text" ] || grep -qF -- "$text" "$work/answer"; } || {
    tail -40 "$work/api.log" >&2
    fail "curl ${*//Bearer */Bearer …}: $got, want $status with $text: $(head -c 2000 "$work/answer")"
  }
  count=$((count + 1))
}
as() { auth="Authorization: Bearer $1"; }
member() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/answer" "$1"; }
json="Content-Type: application/json"

echo "-- public routes"
want 200 ok "$url/health"
want 200 ok "$url/readyz"
want 200 quickstart "$url/info"
want 200 openapi "$url/openapi.json"
want 200 '<title>' "$url/docs"
want 200 'Keyway console' "$url/console/index.html"
want 200 'export' "$url/console/api.js"
want 403 'Missing Authentication Token' "$url/nowhere"

echo "-- the authorizer"
want 401 Unauthorized "$url/agents"
want 502 '' -H "Authorization: Bearer nonsense" "$url/agents"
want 502 '' -H "$(python3 -c 'import json; print("Authorization: " + json.load(open("events/authorizer-expired.json"))["headers"]["Authorization"])')" "$url/agents"
as "$nobody"
want 403 'not authorized' -H "$auth" "$url/agents"
as "$ann"
want 403 'not authorized' -H "$auth" "$url/config"
want 403 'not authorized' -H "$auth" -F message=Hello "$url/agents/finance-agent/runs"
as "$admin"
want 200 quickstart -H "$auth" "$url/config"

echo "-- agents"
want 200 finance-agent -H "$auth" "$url/agents"
as "$ann"
want 200 '"assistant"' -H "$auth" "$url/agents"
! grep -q finance-agent "$work/answer" || fail "the list shows ann an agent that she is not allowed to read"

echo "-- runs"
want 200 'event: RunCompleted' -H "$auth" -F message=Hello -F session_id=first "$url/agents/assistant/runs"
grep -q 'event: RunStarted' "$work/answer" || fail "the events of a run do not begin with RunStarted"
echo "remember the milk" >"$work/note.txt"
want 200 COMPLETED -H "$auth" -F "message=What is in the file?" -F stream=false -F session_id=first -F "files=@$work/note.txt;type=text/plain" "$url/agents/assistant/runs"
run=$(member run_id)
want 200 COMPLETED -H "$auth" "$url/agents/assistant/runs/$run?session_id=first"

echo "-- sessions"
want 200 '"first"' -H "$auth" "$url/sessions"
want 200 "$run" -H "$auth" "$url/sessions/first/runs"
want 200 Renamed -H "$auth" -H "$json" -d '{"session_name": "Renamed"}' "$url/sessions/first/rename"
as "$bob"
want 200 '"data":[]' -H "$auth" "$url/sessions"
want 404 '' -H "$auth" "$url/sessions/first"
as "$ann"
want 204 '' -X DELETE -H "$auth" "$url/sessions/first"
want 404 '' -H "$auth" "$url/sessions/first"

echo "-- memories"
want 200 'likes tea' -H "$auth" -H "$json" -d '{"memory": "likes tea", "topics": ["drinks"]}' "$url/memories"
memory=$(member memory_id)
want 200 drinks -H "$auth" "$url/memory_topics"
want 200 'likes coffee' -X PATCH -H "$auth" -H "$json" -d '{"memory": "likes coffee"}' "$url/memories/$memory"
as "$bob"
want 404 '' -H "$auth" "$url/memories/$memory"
as "$ann"
want 204 '' -X DELETE -H "$auth" "$url/memories/$memory"

echo "sam local: ${#tried[@]} events and $count requests got the expected answers"
