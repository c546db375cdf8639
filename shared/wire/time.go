package wire

import "time"

// AgentOS writes moments in three forms, depending on the member.

// Time is a moment in lists of sessions, runs and memories: UTC, whole seconds and "Z".
type Time struct{ time.Time }

// MarshalJSON writes "2026-11-21T22:53:18Z".
func (t Time) MarshalJSON() ([]byte, error) { return t.appendTo(nil), nil }

// appendTo appends the moment as MarshalJSON writes it.
func (t Time) appendTo(dst []byte) []byte {
	return append(t.UTC().AppendFormat(append(dst, '"'), time.RFC3339), '"') // Package time has a short way for it.
}

// MicroTime is a moment with microseconds and "Z", as in GET /health.
type MicroTime struct{ time.Time }

// MarshalJSON writes "2026-11-21T22:48:06.044242Z".
func (t MicroTime) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

// ISOTime is a moment as Python's datetime.isoformat writes it, with microseconds and
// "+00:00", as in a Requirement.
type ISOTime struct{ time.Time }

const isoLayout = `"2006-01-02T15:04:05.000000+00:00"`

// MarshalJSON writes "2026-11-21T23:07:00.632410+00:00".
func (t ISOTime) MarshalJSON() ([]byte, error) { return t.UTC().AppendFormat(nil, isoLayout), nil }

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *ISOTime) UnmarshalJSON(data []byte) (err error) {
	t.Time, err = time.Parse(isoLayout, string(data))
	return err
}
