# Part of sam-local.sh: what a newcomer types next, for the agents that are served.
read -r first other < <(curl -sS -m 60 -H "Authorization: Bearer $admin" "$url/agents" |
  python3 -c 'import json, sys; print(*[a["id"] for a in json.load(sys.stdin)][:2])') || true
[ -n "${first:-}" ] || { tail -40 "$work/api.log" >&2; fail "the agents of $KEYWAY_CONFIG are not listed"; }
ann=$(token --sub ann --scopes "agents:$first:read,agents:$first:run,$mine")
cat <<TEXT

keyway in sam local at $url with $KEYWAY_CONFIG  (whole answers: sam local does not stream)

# tokens, valid for 24 hours
export ADMIN_TOKEN=$admin
export TOKEN=$ann

# ann may read and run $first, and see her own sessions
curl -H "Authorization: Bearer \$TOKEN" -F "message=Hello" $url/agents/$first/runs
curl -H "Authorization: Bearer \$TOKEN" $url/sessions
TEXT
[ -z "${other:-}" ] || cat <<TEXT

# $other is not hers: 403
curl -H "Authorization: Bearer \$TOKEN" -F "message=Hello" $url/agents/$other/runs
TEXT
cat <<TEXT

# the administrator sees everything
curl -H "Authorization: Bearer \$ADMIN_TOKEN" $url/agents

TEXT
