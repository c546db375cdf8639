"""Mints pyjwt.json, callers of the tests, with PyJWT.

    pip install pyjwt && python mint.py

The key is for these tests only. The tokens are good until the year 2100.
"""
import json
import pathlib

import jwt

KEY = "TEST KEY ONLY: thirty-two bytes at the very least"
EXP = 4102444800

CALLERS = {
    "reader": ["agents:read"],
    "nobody": [],
    "web": ["agents:web-search-agent:run", "agents:web-search-agent:read"],
    "admin": ["agent_os:admin"],
}

tokens = {sub: jwt.encode({"sub": sub, "scopes": scopes, "exp": EXP}, KEY, algorithm="HS256") for sub, scopes in CALLERS.items()}
pathlib.Path(__file__).with_name("pyjwt.json").write_text(json.dumps(tokens, indent=1) + "\n")
