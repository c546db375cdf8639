package cli

import "testing"

// A connection begins to wait several times for each request.
func TestAConnectionThatWaitsAgainAllocatesNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	c := &connection{of: limitConnections(nil, 1, minWaits)}
	c.waits(unknown)
	if n := testing.AllocsPerRun(100, func() { c.waits(unknown) }); n > 0 {
		t.Errorf("%g allocations, want none", n)
	}
	if n := c.of.waiting[unknown].Len(); n != 1 {
		t.Errorf("the connection waits %d times, want once", n)
	}
	c.waits(admitted)
	if c.of.waiting[unknown].Len() != 0 || c.of.waiting[admitted].Len() != 1 {
		t.Error("a connection that waits for an admitted client still waits for an unknown one")
	}
	c.works()
	if c.of.waiting[admitted].Len() != 0 {
		t.Error("a connection that is worked on still waits")
	}
}
