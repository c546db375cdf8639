package wire

import "encoding/json"

// DecisionLog is a part of the log of decisions. AgentOS has no such type.
type DecisionLog struct {
	// Decisions are lines of the log, the oldest first.
	Decisions []json.RawMessage `json:"decisions" holds:"object[]"`
	// Next is the cursor for the lines that follow.
	Next string `json:"next"`
}

// Diff is what another keyway.yaml would decide differently about the requests in the log of decisions. AgentOS has no
// such type.
type Diff struct {
	Gains []DiffRow `json:"gains"`
	Loses []DiffRow `json:"loses"`
	// Replayed is the number of requests that were decided again, of all in the log.
	Replayed  int `json:"replayed"`
	Decisions int `json:"decisions"`
	// Unsure is the number of requests whose answer depends on an id that the log doesn't have, by UnsureMappings.
	Unsure         int      `json:"unsure"`
	UnsureMappings []string `json:"unsure_mappings"`
	// UnknownGrants is the number of requests that were left out, because the file doesn't say what their roles grant.
	UnknownGrants int `json:"unknown_grants"`
	// More is the number of rows that were left out: there are at most 500 of each kind.
	More int `json:"more"`
}

// DiffRow is one difference: all requests with the same verdict for the same reason. Callers are counted by their
// hashes, and Count are their requests.
type DiffRow struct {
	Verdict    string   `json:"verdict"`
	Request    string   `json:"request"`
	Agent      string   `json:"agent,omitempty"`
	Callers    int      `json:"callers"`
	Count      int      `json:"count"`
	Needs      []string `json:"needs"`
	Missing    []string `json:"missing"`
	WasMissing []string `json:"was_missing"`
	Mapping    string   `json:"mapping,omitempty"`
}

// DevToken is a token that keyway serve --dev has signed. AgentOS has no such type.
type DevToken struct {
	Token string `json:"token"`
}
