package scope

// AgentIDPattern is the form of an agent's id, as a regular expression. IsAgentID accepts exactly
// the texts that match it. The struct tag of config.Agent.ID repeats it, since a tag cannot name a
// constant; a test of package config compares the two.
const AgentIDPattern = `^[A-Za-z0-9._-]{1,64}$`

// maxAgentID is the limit of AgentIDPattern, in bytes.
const maxAgentID = 64

// IsAgentID reports whether id has the form of an agent's id. It is a loop because every function
// checks its configuration at a cold start, where compiling the pattern would take longer than
// everything else that is read then.
func IsAgentID(id string) bool {
	return id != "" && len(id) <= maxAgentID && HasOnlyPlainBytes(id)
}

// HasOnlyPlainBytes reports whether every byte of id is an ASCII letter, a digit, a dot, an
// underscore or a hyphen. None of them has a meaning in a path, a scope, an IAM resource or a log
// line, so such an id needs no escape there. The empty text has only such bytes.
func HasOnlyPlainBytes(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
