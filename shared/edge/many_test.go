package edge_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An administrator's scope can have three parts, as a grant for one resource has. It must
// stay when a token has many ids and its grants are widened.
func TestAdministratorWithManyGrantsIsAllowedEverything(t *testing.T) {
	t.Parallel()
	c := declaring("a", "b")
	c.Auth.AdminScope = "org:keyway:admin"
	a := newAuthorizer(t, c)
	want := statements(t, authorize(t, a, "org:keyway:admin"))
	got := statements(t, authorize(t, a, append(many(60, "agents:a%d:run"), "org:keyway:admin")...))
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 15 {
		t.Errorf("%d lines: %s", len(got), diff)
	}
}
