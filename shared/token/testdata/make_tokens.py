#!/usr/bin/env python3
"""Makes pyjwt.json: tokens minted by PyJWT, the library AgentOS 3.1.10 verifies with,
and what that library says of each under a fixed clock.

    python3 -m venv /tmp/pyjwt && /tmp/pyjwt/bin/pip install pyjwt==2.15.1 cryptography
    /tmp/pyjwt/bin/python -W ignore make_tokens.py > pyjwt.json

TEST KEYS ONLY. The HMAC secret below is public; asymmetric keys are made anew at each
run and their private halves are not kept, so every run rewrites the whole file.
"""
import base64, datetime, hashlib, hmac, json

import jwt, jwt.api_jwt
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NOW = 1893456000  # 2030-01-01T00:00:00Z, the clock of the rows
FAR = 4102444800  # 2100-01-01T00:00:00Z
SECRET = "TEST KEY ONLY keyway shared/token/testdata: never use this secret anywhere"
OTHER = "TEST KEY ONLY another secret that is long enough to be one"


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, tz)


jwt.api_jwt.datetime = FixedClock

made = {
    "RS": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
ALGS = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
        "ES256", "ES384", "ES512", "EdDSA"]


def private(alg):
    if alg.startswith("HS"):
        return SECRET
    return made["RS" if alg[:2] in ("RS", "PS") else alg]


def public(alg):
    if alg.startswith("HS"):
        return SECRET
    spki = private(alg).public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
    return spki.decode()


def peer(values, alg, audience, issuer):
    """The 401 text of AgentOS 3.1.10, None when it admits the caller."""
    value = (values[0] if values else "").strip()  # its HTTP server strips the value
    if not value:
        return "Authorization header missing"
    token = value[7:].strip() if value.lower().startswith("bearer ") else value
    if token.startswith("agno_pat_"):
        return "Service accounts are not enabled on this AgentOS instance"
    try:
        claims = jwt.decode(token, public(alg), algorithms=[alg], leeway=10, options={"verify_aud": False})
        if audience:
            aud = claims.get("aud")
            if aud is None:
                raise jwt.InvalidTokenError('Token is missing the "aud" claim. Audience verification '
                                            "requires this claim to be present in the token.")
            if not any(a in audience for a in (aud if isinstance(aud, list) else [aud])):
                return "Invalid token audience - token not valid for this AgentOS instance"
        if issuer and claims.get("iss") is None:
            raise jwt.InvalidTokenError('Token is missing the "iss" claim. Issuer verification '
                                        "requires this claim to be present in the token.")
        if issuer and claims.get("iss") != issuer:
            raise jwt.InvalidIssuerError(f"Invalid issuer. Expected: {issuer}, got: {claims.get('iss')}")
        sub = claims.get("sub")
        if isinstance(sub, str) and (sub.startswith(("sa:", "__oauth__:")) or sub == "__scheduler__"):
            return "Invalid token subject"
    except jwt.ExpiredSignatureError:
        return "Token has expired"
    except jwt.InvalidTokenError as e:
        return f"Invalid token: {e}"
    return None


rows = []
SAME = object()


def row(name, values, alg="HS256", audience=None, issuer=None, require_exp=False, payload=None, ours=SAME):
    """ours: Keyway's text where it differs from AgentOS's on purpose."""
    values = values if isinstance(values, list) else ["Bearer " + values]
    r = {"name": name, "alg": alg, "authorization": values, "peer": peer(values, alg, audience, issuer)}
    if audience:
        r["audience"] = audience
    if issuer:
        r["issuer"] = issuer
    if require_exp:
        r["require_exp"] = True
    r["keyway"] = r["peer"] if ours is SAME else ours
    if r["keyway"] is None:
        r["claims"] = want(payload)
    rows.append(r)


def claims(**over):
    c = {"sub": "alice", "scopes": ["agents:read", "agents:run"], "iat": NOW, "exp": FAR, **over}
    return {k: v for k, v in c.items() if v is not Ellipsis}  # key=... leaves it out


def want(c):
    scopes = c.get("scopes")
    scopes = [scopes] if isinstance(scopes, str) else scopes if isinstance(scopes, list) else []
    if any(not isinstance(s, str) for s in scopes):
        scopes = []
    return {"sub": c.get("sub") or "", "session_id": c.get("session_id") or "", "iss": c.get("iss") or "",
            "jti": c.get("jti") or "", "scopes": scopes, "exp": int(c.get("exp") or 0)}


def minted(name, alg="HS256", key=None, headers=None, ours=SAME, audience=None, issuer=None, require_exp=False, **over):
    c = claims(**over)
    token = jwt.encode(c, key or private(alg), algorithm=alg, headers=headers)
    row(name, token, alg, audience, issuer, require_exp, c, ours)


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header, payload, key=SECRET, digest=hashlib.sha256):
    """A JWS that PyJWT would not make itself, signed all the same."""
    key = key if isinstance(key, bytes) else key.encode()
    text = b64(header) + "." + b64(payload)
    return text + "." + b64(hmac.new(key, text.encode(), digest).digest())


HEADER = {"alg": "HS256", "typ": "JWT"}

# Algorithms, each verified with its own public key.
for alg in ALGS:
    minted(f"{alg} good", alg, session_id="s-1", iss="https://issuer", jti="t-1")

# The Authorization header.
good = jwt.encode(claims(), SECRET)
row("missing header", [])
row("empty header", [""])
row("Bearer only", ["Bearer "])
row("Basic", ["Basic YTpi"])
row("garbage", "garbage")
row("garbage 3 parts", "a.b.c")
row("lower-case bearer", ["bearer " + good], payload=claims())
row("no bearer prefix", [good], payload=claims())
row("bearer with spaces around", ["  BeArEr   " + good + "  "], payload=claims())
row("two Authorization headers", ["Bearer " + good, "Bearer " + good], ours="Ambiguous Authorization header")
row("PAT unknown", ["Bearer agno_pat_unknown"])

# Signatures and algorithms.
minted("wrong key", key=OTHER)
row("HS512 same key", jwt.encode(claims(), SECRET, algorithm="HS512"))
row("HS384 same key", jwt.encode(claims(), SECRET, algorithm="HS384"))
for alg in ["none", "None", "NONE", "nOnE"]:
    row(f"alg {alg}", b64({"alg": alg, "typ": "JWT"}) + "." + b64(claims()) + ".")
row("alg none, signed with an empty key", signed({"alg": "none"}, claims(), key=b""))
row("alg absent", signed({"typ": "JWT"}, claims()))
row("alg null", signed({"alg": None}, claims()))
row("alg number", signed({"alg": 256}, claims()))
row("alg lower case", signed({"alg": "hs256"}, claims()))
row("alg with a blank", signed({"alg": "HS256 "}, claims()))
row("RS512 same key", jwt.encode(claims(), private("RS256"), algorithm="RS512"), "RS256")
row("PS256 same key", jwt.encode(claims(), private("RS256"), algorithm="PS256"), "RS256")
row("HS256 with the shared secret on RS256 server", good, "RS256")
pem = public("RS256")
body = "".join(pem.splitlines()[1:-1])
for name, key in [("pem", pem), ("pem stripped", pem.strip()), ("pem + newline", pem + "\n"),
                  ("base64 body", body), ("DER", base64.b64decode(body))]:
    row(f"HS256 signed with RS256 public key ({name})", signed(HEADER, claims(sub="evil"), key=key), "RS256")
    row(f"RS256 said, HS256 signed with RS256 public key ({name})",
        signed({"alg": "RS256"}, claims(sub="evil"), key=key), "RS256")
row("signature cut", good[:-4])
row("signature empty", good.rsplit(".", 1)[0] + ".")
row("ES256 signature of zeros", b64({"alg": "ES256"}) + "." + b64(claims()) + "." + b64(bytes(64)), "ES256")

# Time; the leeway is 10 s.
minted("expired", exp=NOW - 60)
minted("expired 5s ago (leeway 10)", exp=NOW - 5)
minted("expired 10s ago", exp=NOW - 10)
minted("expired 12s ago", exp=NOW - 12)
minted("no exp", exp=...)
minted("no exp where one is required", exp=..., require_exp=True, ours='Invalid token: Token is missing the "exp" claim')
minted("exp null where one is required", exp=None, require_exp=True, ours='Invalid token: Token is missing the "exp" claim')
minted("exp null", exp=None)
minted("exp zero", exp=0)
minted("exp zero where one is required", exp=0, require_exp=True)
minted("exp negative", exp=-1)
minted("exp in year 1", exp=-62135596800)
minted("exp far below zero", exp=-10**30)
minted("exp float", exp=NOW + 60.9)
minted("exp float just expired", exp=NOW - 9.5)
minted("exp text", exp="soon")
minted("exp digits in text", exp=str(FAR), ours="Invalid token: Expiration Time claim (exp) must be an integer.")
minted("exp true", exp=True, ours="Invalid token: Expiration Time claim (exp) must be an integer.")
minted("exp list", exp=[FAR])
minted("exp in milliseconds", exp=FAR * 1000, ours="Invalid token: Expiration Time claim (exp) must be in seconds.")
row("exp beyond a float", signed(HEADER, b'{"sub":"alice","exp":1e400}'))
row("exp NaN", signed(HEADER, b'{"sub":"alice","exp":NaN}'), ours="Invalid token: Invalid payload string: not valid JSON")
row("exp Infinity", signed(HEADER, b'{"sub":"alice","exp":Infinity}'),
    ours="Invalid token: Invalid payload string: not valid JSON")
minted("nbf future", nbf=NOW + 600)
minted("nbf within the leeway", nbf=NOW + 10)
minted("nbf text", nbf="soon")
minted("nbf far future", nbf=10**30)
minted("iat future 600", iat=NOW + 600)
minted("iat within the leeway", iat=NOW + 10)
minted("iat 11 s ahead", iat=NOW + 11)
minted("iat text", iat="soon")
minted("iat null", iat=None)
minted("iat and exp both wrong", iat="soon", exp=NOW - 60)

# Audience and issuer.
OS = ["my-agent-os"]
minted("aud missing", audience=OS)
minted("aud null", audience=OS, aud=None)
minted("aud right", audience=OS, aud="my-agent-os")
minted("aud wrong", audience=OS, aud="other")
minted("aud list with", audience=OS, aud=["x", "my-agent-os"])
minted("aud list without", audience=OS, aud=["x"])
minted("aud empty list", audience=OS, aud=[])
minted("aud empty text", audience=OS, aud="")
minted("aud number", audience=OS, aud=5)
minted("aud object", audience=OS, aud={"my-agent-os": 1})
minted("aud case", audience=OS, aud="My-Agent-OS")
minted("aud list with a number in it", audience=OS, aud=[5, "my-agent-os"],
       ours="Invalid token audience - token not valid for this AgentOS instance")
minted("aud wrong (unchecked)", aud="other")
minted("aud wrong and subject reserved", audience=OS, aud="other", sub="sa:bot")
ISS = "https://issuer"
minted("iss right", issuer=ISS, iss=ISS)
minted("iss missing", issuer=ISS)
row("iss null", signed(HEADER, claims(iss=None)), issuer=ISS)
minted("iss wrong", issuer=ISS, iss="https://evil", ours="Invalid token: Invalid issuer")
minted("iss prefix", issuer=ISS, iss=ISS + "/", ours="Invalid token: Invalid issuer")
row("iss number (unchecked)", signed(HEADER, claims(iss=5)),
    ours="Invalid token: Payload Issuer (iss) must be a string")

# Subject, session, token id.
minted("sub missing", sub=...)
minted("sub number", sub=7)
minted("sub list", sub=["alice"])
minted("sub null", sub=None, ours=None)
minted("sub empty", sub="")
for sub in ["sa:bot", "sa:", "__scheduler__", "__oauth__:x", "SA:bot", " sa:bot", "__scheduler__x", "__oauth__"]:
    minted(f"sub {sub}", sub=sub)
row("sub with an escaped reserved prefix", signed(HEADER, b'{"sub":"\\u0073a:bot","exp":4102444800}'))
minted("sub of 1024 bytes", sub="a" * 1024)
minted("sub of 1025 bytes", sub="a" * 1025, ours="Invalid token subject")
minted("sub of 1026 bytes in 513 letters", sub="é" * 513, ours="Invalid token subject")
minted("sub with NUL", sub="al\0ice", ours="Invalid token subject")
minted("sub outside ASCII", sub="Zoë 🙂")
minted("session 255 bytes", session_id="s" * 255)
SESSION = "Invalid token: session_id must be a string of at most 255 bytes"
minted("session 256 bytes", session_id="s" * 256, ours=SESSION)
minted("session number", session_id=5, ours=SESSION)
minted("session with NUL", session_id="\0", ours=SESSION)
minted("session null", session_id=None)
minted("jti number", jti=5)
minted("jti 256 bytes", jti="j" * 256, ours="Invalid token: JWT ID must be a string of at most 255 bytes")

# Scopes.
minted("scopes string one", scopes="agents:read")
minted("scopes string spaces", scopes="agents:read agents:run")
minted("scopes missing", scopes=...)
minted("scopes object", scopes={"a": 1})
minted("scopes null", scopes=None)
minted("scopes number", scopes=1)
minted("scopes with non-strings", scopes=[1, None, "agents:read"])
minted("scopes with null only", scopes=[None])
minted("scopes nested", scopes=[["agent_os:admin"]])
minted("scopes empty list", scopes=[])
minted("scopes empty and repeated", scopes=["", "a:b", "", "a:b"])
minted("scopes with quotes, brackets and commas", scopes=['a","agent_os:admin', "]", "\\", "{", 'x"]'])
minted("scope claim not read", scopes=..., scope="agents:read")

# The JOSE header is not trusted.
KEY_HEADERS = {"jku": "https://evil/jwks.json", "x5u": "https://evil/cert.pem", "x5c": ["MIIB"],
               "jwk": {"kty": "oct", "k": b64(OTHER.encode())}}
minted("jku, x5u, x5c and jwk, rightly signed", headers=KEY_HEADERS)
for name, value in KEY_HEADERS.items():
    minted(f"{name}, signed with its key", headers={name: value}, key=OTHER)
for kid in ["../../../../dev/null", "' OR 1=1 --", "/etc/passwd", "\u0000", ""]:
    minted(f"kid {kid!r}", headers={"kid": kid})
row("kid number", signed({**HEADER, "kid": 5}, claims()))
CRIT = "Invalid token: Unsupported critical extension"
row("crit exp", signed({**HEADER, "crit": ["exp"], "exp": FAR}, claims()), ours=CRIT)
row("crit empty", signed({**HEADER, "crit": []}, claims()), ours=CRIT)
row("crit null", signed({**HEADER, "crit": None}, claims()), ours=CRIT)
row("crit b64", signed({**HEADER, "crit": ["b64"], "b64": True}, claims()), ours=CRIT)
row("b64 false without crit", signed({**HEADER, "b64": False}, claims()), ours=CRIT)
row("typ at+jwt", signed({"alg": "HS256", "typ": "at+jwt"}, claims()), payload=claims())

# Encoding.
HEADER_JSON = "Invalid token: Invalid header string: not valid JSON"
PAYLOAD_JSON = "Invalid token: Invalid payload string: not valid JSON"
TWICE = "two members of one name"
row("four parts", good + ".x")
row("five parts, as JWE", "e30.a.b.c.d")
row("one dot", "e30.e30")
row("dots only", "..", ours=HEADER_JSON)
row("header not JSON", b64(b"{alg") + ".e30.e30", ours=HEADER_JSON)
row("header list", b64(b"[]") + ".e30.e30")
row("header empty", ".e30.e30", ours=HEADER_JSON)
row("payload not base64", good.split(".")[0] + ".!!!." + good.split(".")[2])
row("signature not base64", good.rsplit(".", 1)[0] + ".!!!")
row("standard base64 alphabet", good.rsplit(".", 1)[0] + ".++//")
row("padded signature", good + "=", ours="Invalid token: Invalid crypto padding")
row("signature with a line end", good + "\nAAAA")
row("header with bits to spare", good.replace(".", "B.", 1))
row("payload list", signed(HEADER, b"[]"))
row("payload text", signed(HEADER, b'"alice"'))
row("payload not JSON", signed(HEADER, b"{"), ours=PAYLOAD_JSON)
row("payload empty", signed(HEADER, b""), ours=PAYLOAD_JSON)
row("payload with trailing data", signed(HEADER, json.dumps(claims()).encode() + b"{}"), ours=PAYLOAD_JSON)
row("payload with spaces around", signed(HEADER, b" \n" + json.dumps(claims(), indent=1).encode() + b"\t "),
    payload=claims())
row("payload with broken UTF-8", signed(HEADER, b'{"sub":"al\xffce"}'), ours=PAYLOAD_JSON)
row("payload with half a surrogate pair", signed(HEADER, b'{"sub":"al\\ud800ice"}'), ours=PAYLOAD_JSON)
row("payload with a surrogate pair", signed(HEADER, b'{"sub":"al\\ud83d\\ude42ice"}'), payload={"sub": "al🙂ice"})
row("payload with sub twice", signed(HEADER, b'{"sub":"alice","sub":"admin"}'),
    ours="Invalid token: Invalid payload string: " + TWICE)
row("payload with sub twice, once escaped", signed(HEADER, b'{"sub":"alice","s\\u0075b":"admin"}'),
    ours="Invalid token: Invalid payload string: " + TWICE)
row("payload with sub in other cases", signed(HEADER, b'{"sub":"alice","SUB":"admin","Scopes":["agent_os:admin"]}'),
    payload={"sub": "alice"})
row("header with alg twice", signed(b'{"alg":"none","alg":"HS256"}', claims()),
    ours="Invalid token: Invalid header string: " + TWICE)
row("header with broken UTF-8", signed(b'{"alg":"HS256","x":"\xff"}', claims()), ours=HEADER_JSON)

lines = ",\n".join(json.dumps(r) for r in rows)
print('{"comment": "made by make_tokens.py with PyJWT %s; TEST KEYS ONLY",\n"now": %d,\n"keys": %s,\n"rows": [\n%s\n]}'
      % (jwt.__version__, NOW, json.dumps({a: public(a) for a in ALGS}), lines))
