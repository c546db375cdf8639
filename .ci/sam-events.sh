# Part of sam-local.sh. It sends each event of events/ to its function, in a new container,
# and checks that the answer contains the given texts.
tried=()
answers() {
  local event=$1 function=$2 text
  shift 2
  tried+=("events/$event.json")
  invoke "$function" "events/$event.json" >"$work/answer"
  for text in "$@"; do
    grep -qF -- "$text" "$work/answer" || { cat "$work/answer" "$work/invoke.log" >&2; fail "events/$event.json: the answer does not contain $text"; }
  done
  echo "ok  events/$event.json"
}

start_bucket
answers migrate MigrateFunction
grep -q '"Status": *"SUCCESS"' "$work/migration.json" || fail "the migration reports to CloudFormation: $(cat "$work/migration.json")"
answers authorizer-allow AuthorizerFunction '"Effect": "Allow"' 'GET/agents/assistant"' '"sub": "ann"'
answers authorizer-deny AuthorizerFunction '"Effect": "Allow"' 'GET/whoami"' 'POST/can"'
! grep -q '/agents' "$work/answer" || fail "events/authorizer-deny.json: the policy lists a route that a token without scopes is not allowed to use"
answers authorizer-expired AuthorizerFunction '"errorMessage": "Unauthorized"'
answers authorizer-unmapped AuthorizerFunction '"Effect": "Allow"'
! grep -q 'GET/config' "$work/answer" || fail "events/authorizer-unmapped.json: the policy lists a route that ann is not allowed to use"
answers config ConfigFunction '"statusCode": 200' 'ok'
answers agents AgentsFunction '"statusCode": 200' 'assistant' 'finance-agent'
answers runs RunsFunction '"statusCode": 200' 'text/event-stream' 'RunStarted' 'RunCompleted' 'You said: Hello'
answers agui RunsFunction '"statusCode": 200' 'text/event-stream' 'RUN_STARTED' 'RUN_FINISHED' 'TEXT_MESSAGE_CONTENT' 'Hello'
answers chat-completions RunsFunction '"statusCode": 200' 'text/event-stream' 'chat.completion.chunk' 'finish_reason' '[DONE]'
answers mcp RunsFunction '"statusCode": 200' 'application/json' 'structuredContent' 'You said: Hello'
answers runs-multipart RunsFunction '"statusCode": 200' 'COMPLETED' 'What is in the file?'
answers sessions SessionsFunction '"statusCode": 200' 'total_count'
answers memories MemoriesFunction '"statusCode": 200' 'likes tea'
answers worker WorkerFunction 'batchItemFailures'
answers worker-schedule WorkerFunction 'batchItemFailures'

for event in events/*.json; do
  [ "$event" = events/env.json ] || [[ " ${tried[*]} " == *" $event "* ]] || fail "$event is not sent to any function"
done
