package gateway

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/token"
)

const (
	// MaxCached is the number of tokens whose policies are kept. In a full cache, a new one replaces the oldest one.
	MaxCached = 10_000
	// MaxCachedBytes is the size of the policies and principals that are kept, in bytes, as bytesOf counts it.
	MaxCachedBytes = 32 << 20
)

// key identifies a token.
type key = [sha256.Size]byte

// keyOf returns the key of the token in the values of an Authorization header, however the header is spelled. one is
// false if there is not exactly one token; then the authorizer is asked each time, and refuses.
func keyOf(authorization []string) (k key, one bool) {
	raw, err := token.Sent(authorization)
	return sha256.Sum256([]byte(raw)), err == nil
}

// cache holds the answers of the authorizer. It is safe for concurrent use.
type cache struct {
	maxEntries, maxBytes int

	mu      sync.Mutex
	entries map[key]*list.Element
	// oldest are the entries in the order in which they were added. Each is valid for at most CacheTTL, so the oldest one
	// is also among the first to end.
	oldest list.List
	bytes  int
}

type entry struct {
	key   key
	bytes int
	admission
}

func newCache(maxEntries, maxBytes int) *cache {
	return &cache{maxEntries: maxEntries, maxBytes: maxBytes, entries: map[key]*list.Element{}}
}

// get returns the answer for a token, if there is one that is still valid.
func (c *cache) get(k key, now time.Time) (admission, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.entries[k]
	if !ok {
		return admission{}, false
	}
	e := at.Value.(*entry) //nolint:forcetypeassert // the list holds nothing else
	if !now.Before(e.until) {
		c.remove(at)
		return admission{}, false
	}
	return e.admission, true
}

// put adds an answer, and removes the oldest ones until there is room. An answer without room in an empty cache is not
// added.
func (c *cache) put(k key, a admission) {
	size := bytesOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.entries[k]; ok {
		c.remove(at)
	}
	if size > c.maxBytes {
		return
	}
	for len(c.entries) >= c.maxEntries || c.bytes+size > c.maxBytes {
		c.remove(c.oldest.Front())
	}
	c.entries[k] = c.oldest.PushBack(&entry{key: k, bytes: size, admission: a})
	c.bytes += size
}

// remove removes an entry. The caller holds mu.
func (c *cache) remove(at *list.Element) {
	e := c.oldest.Remove(at).(*entry) //nolint:forcetypeassert // the list holds nothing else
	delete(c.entries, e.key)
	c.bytes -= e.bytes
}

// bytesOf is about how much memory an answer takes: its texts, and for each of them, and for the rest of an entry, what
// Go adds.
func bytesOf(a admission) int {
	const ofText, ofRest = 16, 1 << 10
	size := ofRest
	add := func(texts ...string) {
		for _, t := range texts {
			size += len(t) + ofText
		}
	}
	for _, s := range a.policy.Statement {
		add(s.Action...)
		add(s.Resource...)
	}
	p := a.principal
	add(p.Scopes...)
	add(p.Origins...)
	add(p.Subject, p.SessionID, p.Issuer, p.Realm, p.TokenID, p.SubjectClaim, p.Absent, p.Unread)
	return size
}
