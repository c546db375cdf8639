# Part of sam-local.sh. It prints tokens and example requests for the served agents.
read -r first other < <(curl -sS -m 60 -H "Authorization: Bearer $admin" "$url/agents" |
  python3 -c 'import json, sys; print(*[a["id"] for a in json.load(sys.stdin)][:2])') || true
[ -n "${first:-}" ] || { tail -40 "$work/api.log" >&2; fail "GET /agents does not list the agents of $KEYWAY_CONFIG"; }
ann=$(token --sub ann --scopes "agents:$first:read,agents:$first:run,$mine")
cat <<TEXT

keyway in sam local at $url with $KEYWAY_CONFIG  (sam local sends each answer as a whole, and does not stream)

# tokens, valid for 24 hours
export ADMIN_TOKEN=$admin
export TOKEN=$ann

# ann is allowed to read and run $first, and to see her own sessions
curl -H "Authorization: Bearer \$TOKEN" -F "message=Hello" $url/agents/$first/runs
curl -H "Authorization: Bearer \$TOKEN" $url/sessions
TEXT
[ -z "${other:-}" ] || cat <<TEXT

# ann is not allowed to run $other: 403
curl -H "Authorization: Bearer \$TOKEN" -F "message=Hello" $url/agents/$other/runs
TEXT
cat <<TEXT

# the administrator sees everything
curl -H "Authorization: Bearer \$ADMIN_TOKEN" $url/agents

TEXT
