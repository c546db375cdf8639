"""Makes pyjwt.json with PyJWT: the tokens of the callers in AgentOS's documents.

    pip install pyjwt cryptography && python mint.py

The key is the example secret printed in the Agno documents. It is never a real one.
The tokens are valid until the year 2100.
"""
import json
import pathlib

import jwt

KEY = "your-secret-key-at-least-256-bits-long"
EXP = 4102444800

OWN = [f"{family}:{action}" for family in ("sessions", "memories") for action in ("read", "write", "delete")]

CALLERS = {
    "per-agent-permissions": {
        "web_user": ["agents:read", "agents:web-search-agent:run"],
        "finance_user": ["agents:read", "agents:finance-agent:run"],
        "power_user": ["agents:read", "agents:web-search-agent:run", "agents:finance-agent:run"],
    },
    "advanced-scopes": {
        "admin_user": ["agent_os:admin"],
        "power_user": ["system:read", "agents:read", "agents:run", "sessions:read", "sessions:write"],
        "limited_user": [
            "agents:web-search-agent:read",
            "agents:web-search-agent:run",
            "agents:analyst-agent:read",
            "agents:analyst-agent:run",
        ],
        "readonly_user": ["agents:*:read", "system:read"],
        "wildcard_user": ["agents:read", "agents:*:run"],
    },
    "custom-scope-mappings": {
        "user_123": ["app:read"],
        "user_456": ["app:read", "app:run", "app:execute"],
        "admin_789": ["app:admin", "app:read", "app:run", "app:execute"],
        "superadmin": ["app:superadmin"],
    },
    "quickstart": {
        "admin": ["agent_os:admin"],
        "ann": ["agents:*:read", "agents:assistant:run", *OWN],
        "bob": ["agents:*:read", "agents:assistant:run", *OWN],
        "nobody": [],
        "": ["agents:run", "agents:read", "metrics:read", "metrics:write", *OWN],
    },
    "testdata/clients/keyway.yaml": {
        "admin": ["agent_os:admin"],
        "ann": [
            "agents:read",
            "agents:run",
            "sessions:read",
            "sessions:write",
            "sessions:delete",
            "memories:read",
            "memories:write",
            "memories:delete",
            "config:read",
            "teams:read",
            "workflows:read",
        ],
        "reader": ["agents:read"],
    },
}


def mint(sub, scopes):
    claims = {"scopes": scopes, "exp": EXP}
    if sub:
        claims["sub"] = sub
    return jwt.encode(claims, KEY, algorithm="HS256")


tokens = {example: {sub: mint(sub, scopes) for sub, scopes in callers.items()} for example, callers in CALLERS.items()}
# Documents whose tokens carry more than scopes.
HERE = pathlib.Path(__file__)
TIMES = {"iat": 1704067200, "exp": EXP}
# A key of these tests and of nothing else. RS256 signs the same text the same way.
TEST_KEY = HERE.with_name("rs256-test-private.pem").read_text()


def sign(key, algorithm, **claims):
    return jwt.encode({**claims, **TIMES}, key, algorithm=algorithm)


tokens["agent-permissions"] = {
    sub: sign(KEY, "HS256", sub=sub, scopes=[scope])
    for sub, scope in {
        "user_123": "agents:web-search-agent:run",
        "user_456": "agents:agno-agent:run",
        "any_agent": "agents:*:run",
        "admin": "agent_os:admin",
    }.items()
}
tokens["agent-permissions with aud"] = {
    sub: sign(KEY, "HS256", sub=sub, scopes=["agents:web-search-agent:run"], aud=aud)
    for sub, aud in {"user_123": "my-agent-os", "one_of_two": ["another-os", "my-agent-os"], "stranger": "another-os"}.items()
}
tokens["basic-rbac-asymmetric"] = {
    "user_123": sign(TEST_KEY, "RS256", sub="user_123", session_id="session_456", scopes=["agents:read", "agents:run"]),
    "admin_789": sign(TEST_KEY, "RS256", sub="admin_789", session_id="admin_session_123", scopes=["agent_os:admin"]),
}
tokens["own-tools"] = {
    sub: sign(KEY, "HS256", sub=sub, scopes=scopes)
    for sub, scopes in {
        "ann": ["agents:read", "agents:run"],
        "bob": ["agents:read", "agents:run"],
        "counter_only": ["agents:counter:read", "agents:counter:run"],
    }.items()
}
pathlib.Path(__file__).with_name("pyjwt.json").write_text(json.dumps(tokens, indent=1) + "\n")
