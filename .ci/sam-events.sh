# Part of sam-local.sh: each event of events/ is put to the function that it is for, in a
# container of its own, and the answer must hold the texts beside it.
tried=()
answers() {
  local event=$1 function=$2 text
  shift 2
  tried+=("events/$event.json")
  invoke "$function" "events/$event.json" >"$work/answer"
  for text in "$@"; do
    grep -qF -- "$text" "$work/answer" || { cat "$work/answer" "$work/invoke.log" >&2; fail "events/$event.json: the answer lacks $text"; }
  done
  echo "ok  events/$event.json"
}

start_taker
answers migrate MigrateFunction
grep -q '"Status": *"SUCCESS"' "$work/migration.json" || fail "the migration tells CloudFormation: $(cat "$work/migration.json")"
answers authorizer-allow AuthorizerFunction '"Effect": "Allow"' 'GET/agents/assistant"' '"sub": "ann"'
answers authorizer-deny AuthorizerFunction '"Effect": "Deny"'
answers authorizer-expired AuthorizerFunction '"errorMessage": "Unauthorized"'
answers authorizer-unmapped AuthorizerFunction '"Effect": "Allow"'
! grep -q 'GET/config' "$work/answer" || fail "events/authorizer-unmapped.json: the policy lists a route that ann may not use"
answers config ConfigFunction '"statusCode": 200' 'ok'
answers agents AgentsFunction '"statusCode": 200' 'assistant' 'finance-agent'
answers runs RunsFunction '"statusCode": 200' 'text/event-stream' 'RunStarted' 'RunCompleted' 'You said: Hello'
answers runs-multipart RunsFunction '"statusCode": 200' 'COMPLETED' 'What is in the file?'
answers sessions SessionsFunction '"statusCode": 200' 'total_count'
answers memories MemoriesFunction '"statusCode": 200' 'likes tea'
answers worker WorkerFunction 'batchItemFailures'
answers worker-schedule WorkerFunction 'batchItemFailures'

for event in events/*.json; do
  [ "$event" = events/env.json ] || [[ " ${tried[*]} " == *" $event "* ]] || fail "$event is put to no function"
done
