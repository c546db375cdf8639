package wire

// WhoAmI is what the server reads in the caller's token. AgentOS has no such type.
type WhoAmI struct {
	OSID    string `json:"os_id"`
	Subject string `json:"sub"`
	// UserID is the owner under which the caller's data is stored, "" for a token without a subject.
	UserID string `json:"user_id"`
	// UserIDOtherwise is the owner instead, if the database has recorded another home issuer. It is set only by a function
	// without the database.
	UserIDOtherwise string      `json:"user_id_otherwise,omitempty"`
	Issuer          string      `json:"issuer"`
	Admin           bool        `json:"admin"`
	SessionID       string      `json:"session_id,omitempty"`
	Scopes          []ScopeFrom `json:"scopes"`
	IssuedAt        int64       `json:"issued_at,omitempty"`
	ExpiresAt       int64       `json:"expires_at,omitempty"`
	UserIsolation   bool        `json:"user_isolation"`
	// Local means that this server has the routes that functions don't have, such as GET /decisions.
	Local  bool         `json:"local"`
	Limits *CallerLimit `json:"limits,omitempty"`
}

// ScopeFrom is a scope of a token, and the claim or the role that it is from.
type ScopeFrom struct {
	Scope string `json:"scope"`
	From  string `json:"from"`
}

// CallerLimit is what the runs of a caller may use. An absent member is no limit.
type CallerLimit struct {
	ConcurrentRuns int     `json:"concurrent_runs,omitempty"`
	WaitingRuns    int     `json:"waiting_runs,omitempty"`
	RunsPerMinute  int     `json:"runs_per_minute,omitempty"`
	RunsPerDay     int     `json:"runs_per_day,omitempty"`
	TokensPerRun   int     `json:"tokens_per_run,omitempty"`
	TokensPerDay   int     `json:"tokens_per_day,omitempty"`
	USDPerDay      float64 `json:"usd_per_day,omitempty"`
}

// Decisions is what the caller's token opens. AgentOS has no such type.
type Decisions struct {
	Decisions []Decision `json:"decisions"`
}

// Decision is the decision about one request. Status is 200 for a request that is allowed.
type Decision struct {
	Method  string         `json:"method"`
	Path    string         `json:"path"`
	Status  int            `json:"status"`
	Allowed bool           `json:"allowed"`
	Route   string         `json:"route"` // "" if no route serves the request
	Needs   []string       `json:"needs"`
	Granted []ScopeCovered `json:"granted"`
	Missing []string       `json:"missing"`
	Reasons []string       `json:"reasons"`
}

// ScopeCovered is a scope of the caller, where it is from, and the need that it covers.
type ScopeCovered struct {
	Scope  string `json:"scope"`
	From   string `json:"from"`
	Covers string `json:"covers"`
}
