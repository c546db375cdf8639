package scope

import (
	"slices"
	"strings"
	"testing"
)

const admin = "agent_os:admin"

func need(t *testing.T, text string) Need {
	t.Helper()
	n, ok := Parse(text)
	if !ok {
		t.Fatalf("need %q is not a scope", text)
	}
	return n
}

func TestAGrantCoversWhatItNamesAndNoMore(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		granted, needed string
		covered         bool
	}{
		{"agents:run", "agents:run", true},
		{"agents:run", "agents:x:run", true},
		{"agents:*:run", "agents:run", true},
		{"agents:*:run", "agents:x:run", true},
		{"agents:x:run", "agents:x:run", true},
		{"agents:x:run", "agents:y:run", false},
		{"agents:x:run", "agents:run", false},
		{"agents:run", "agents:read", false},
		{"agents:run", "sessions:run", false},
		{"system:read", "config:read", true},
		{"config:read", "system:read", true},
		{admin, "anything:at:all", true},
		{"agents:x:run agents:y:run", "agents:y:run", true},
		// These look like grants and grant nothing.
		{"agents:*", "agents:run", false},
		{"agents:*:*", "agents:x:run", false},
		{"agents:x:*", "agents:x:run", false},
		{"*", "agents:run", false},
		{"*:run", "agents:run", false},
		{"*:*:run", "agents:x:run", false},
		{"agent_os:*", "agents:run", false},
		{"agents::run", "agents:run", false},
		{":run", "agents:run", false},
		{"agents:", "agents:run", false},
		{"agents:x:y:run", "agents:x:run", false},
		{"AGENTS:RUN", "agents:run", false},
		{"agents:web*:run", "agents:web-search:run", false},
		{"agents:run:x", "agents:x:run", false},
		{"Agent_os:admin", "agents:run", false},
		{"", "agents:run", false},
	} {
		got := NewSet(strings.Fields(row.granted), admin).Covers(need(t, row.needed))
		if got != row.covered {
			t.Errorf("%q covers %q: %t, want %t", row.granted, row.needed, got, row.covered)
		}
	}
}

func TestAScopeWithASpaceInItIsOneScopeThatGrantsNothing(t *testing.T) {
	t.Parallel()
	s := NewSet([]string{"x " + admin}, admin)
	if s.Admin() || s.Covers(Need{Resource: "agents", Action: "run"}) {
		t.Error("a scope was split at its space")
	}
}

func TestTheZeroSetGrantsNothing(t *testing.T) {
	t.Parallel()
	var s Set
	if ids, all := s.IDs("agents", "read"); s.Admin() || all || len(ids) > 0 || s.Covers(Need{}) {
		t.Error("the zero set grants something")
	}
}

func TestAConfiguredAdminScopeReplacesTheDefault(t *testing.T) {
	t.Parallel()
	if s := NewSet([]string{admin}, "app:superadmin"); s.Admin() || s.Covers(need(t, "agents:run")) {
		t.Error("the default admin scope still grants everything")
	}
	if s := NewSet([]string{"app:superadmin"}, "app:superadmin"); !s.Admin() {
		t.Error("the configured admin scope grants nothing")
	}
	if s := NewSet([]string{""}, ""); s.Admin() {
		t.Error("an empty admin scope is matched by an empty scope")
	}
}

func TestIDsReturnsTheIDsOfOneFamilyAndAction(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		granted string
		ids     []string
		all     bool
	}{
		{"agents:b:read agents:a:read agents:c:run sessions:d:read", []string{"a", "b"}, false},
		{"agents:read agents:a:read", nil, true},
		{"agents:*:read", nil, true},
		{admin, nil, true},
		{"agents:run", nil, false},
		{"agents:web*:read", []string{"web*"}, false},
	} {
		ids, all := NewSet(strings.Fields(row.granted), admin).IDs("agents", "read")
		if !slices.Equal(ids, row.ids) || all != row.all {
			t.Errorf("%q: ids %q all %t, want %q %t", row.granted, ids, all, row.ids, row.all)
		}
	}
}

func TestANeedIsNarrowedOnlyToItsOwnFamily(t *testing.T) {
	t.Parallel()
	if got := need(t, "agents:run").On("agents", "x"); got != need(t, "agents:x:run") {
		t.Errorf("own family: %v", got)
	}
	if got := need(t, "sessions:read").On("agents", "x"); got != need(t, "sessions:read") {
		t.Errorf("another family: %v", got)
	}
	if got := need(t, "agents:y:run").On("agents", "x"); got != need(t, "agents:y:run") {
		t.Errorf("a need that names its resource: %v", got)
	}
}

func TestNamedAndWidened(t *testing.T) {
	t.Parallel()
	const scopes = "agents:b:run agents:a:read sessions:a:read agents:*:read agents:web*:run agents:x: config:read"
	s := NewSet(strings.Fields(scopes), admin)
	if got := s.Named(); !slices.Equal(got, []string{"a", "b", "web*"}) {
		t.Errorf("the ids are %q", got)
	}
	w := s.Widened()
	for text, want := range map[string]bool{
		"agents:run": true, "agents:c:run": true, "agents:read": true, "sessions:read": true, "config:read": true,
		"sessions:delete": false, "memories:read": false,
	} {
		if got := w.Covers(need(t, text)); got != want {
			t.Errorf("the widened set covers %s: %t", text, got)
		}
	}
	if w.Admin() || !NewSet([]string{admin}, admin).Widened().Admin() || len(w.Named()) > 0 {
		t.Error("Widened changed whether the set is an administrator's, or kept ids")
	}
	if s.Covers(need(t, "agents:run")) {
		t.Error("Widened changed the original set")
	}
}
