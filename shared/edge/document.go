package edge

import (
	"encoding/binary"
	"sync"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/strictjson"
)

// document is a policy, and its JSON with the bytes of encoding/json.
type document struct {
	policy events.APIGatewayCustomAuthorizerPolicy
	json   []byte
}

// documents are the policies that were made. A policy follows from the configuration, the scopes, the audience and
// the stage, and from nothing else of a token: neither who it is of nor when it ends. So tokens with the same of
// these have the same policy, and an entry never becomes wrong. Each token is verified whether or not its policy is
// here.
type documents struct {
	mu   sync.Mutex
	made map[string]*document
	size int // the bytes of all keys and texts
}

const (
	// maxDocuments and maxDocumentBytes bound what is kept. A new policy beyond them takes the place of all.
	maxDocuments     = 256
	maxDocumentBytes = 2 << 20
	// maxKey is the size of the longest key. More scopes than that are rare, and comparing them costs as much as making
	// the policy.
	maxKey = 4 << 10
)

// documentFor returns the policy of the principal's scopes, for the API and stage of arn.
func (a *Authorizer) documentFor(p *authz.Principal, arn string) *document {
	var room [512]byte // on the stack
	key := documentKey(room[:0], p, arn)
	if len(key) > maxKey {
		return a.newDocument(p, arn)
	}
	a.made.mu.Lock()
	found := a.made.made[string(key)]
	a.made.mu.Unlock()
	if found != nil {
		return found
	}
	d := a.newDocument(p, arn)
	a.made.keep(string(key), d)
	return d
}

// documentKey appends the audience, the stage and the scopes, the last two each with its length, so that two lists
// never have the same key.
func documentKey(key []byte, p *authz.Principal, arn string) []byte {
	key = append(key, byte(p.Audience))
	key = append(binary.AppendUvarint(key, uint64(len(arn))), arn...)
	for _, s := range p.Scopes {
		if len(key) > maxKey {
			break
		}
		key = append(binary.AppendUvarint(key, uint64(len(s))), s...)
	}
	return key
}

// keep keeps a policy.
func (d *documents) keep(key string, made *document) {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := len(key) + 2*len(made.json) // the texts are in the policy and in its JSON
	if d.made == nil || len(d.made) == maxDocuments || d.size+size > maxDocumentBytes {
		d.made, d.size = make(map[string]*document), 0
	}
	if _, twice := d.made[key]; !twice && size <= maxDocumentBytes {
		d.made[key] = made
		d.size += size
	}
}

func (a *Authorizer) newDocument(p *authz.Principal, arn string) *document {
	policy := a.policy(holder{a.Policy.Granted(p), p.Audience}, arn)
	return &document{policy, appendPolicy(nil, policy)}
}

// appendPolicy appends the JSON of a policy.
func appendPolicy(out []byte, p events.APIGatewayCustomAuthorizerPolicy) []byte {
	out = strictjson.AppendText(append(out, `{"Version":`...), p.Version)
	out = append(out, `,"Statement":[`...)
	for i, s := range p.Statement {
		if i > 0 {
			out = append(out, ',')
		}
		out = strictjson.AppendTexts(append(out, `{"Action":`...), s.Action)
		out = strictjson.AppendText(append(out, `,"Effect":`...), s.Effect)
		out = append(strictjson.AppendTexts(append(out, `,"Resource":`...), s.Resource), '}')
	}
	return append(out, "]}"...)
}

// json is the answer's JSON, with the bytes that encoding/json makes of a Response without escapes for HTML.
func (v verdict) json() []byte {
	size := len(v.policy.json) + 128
	for _, m := range v.context {
		size += len(m.name) + len(m.text) + len(m.text)/8 + 8
	}
	out := append(make([]byte, 0, size), `{"principalId":`...)
	out = append(strictjson.AppendText(out, v.principal), `,"policyDocument":`...)
	out = append(append(out, v.policy.json...), `,"context":{`...)
	for i, m := range v.context {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(strictjson.AppendText(out, m.name), ':')
		out = strictjson.AppendText(out, m.text)
	}
	return append(out, "}}"...)
}
