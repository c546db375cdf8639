"""Mints pyjwt.json, the tokens of the documents' callers, with PyJWT.

    pip install pyjwt && python mint.py

The key is the example secret printed in the Agno documents: never a real one.
The tokens are good until the year 2100.
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
        "": ["agents:run", "agents:read", *OWN],
    },
}


def mint(sub, scopes):
    claims = {"scopes": scopes, "exp": EXP}
    if sub:
        claims["sub"] = sub
    return jwt.encode(claims, KEY, algorithm="HS256")


tokens = {example: {sub: mint(sub, scopes) for sub, scopes in callers.items()} for example, callers in CALLERS.items()}
pathlib.Path(__file__).with_name("pyjwt.json").write_text(json.dumps(tokens, indent=1) + "\n")
