package config

// Open reports whether callers can use the door. The zero value is closed.
func (d Door) Open() bool { return d.Enabled != nil && *d.Enabled }

// complete opens the doors that the file doesn't mention. On AWS an API is often public, so that the operator names
// the protocols there that have clients of their own.
func (d *Doors) complete(onAWS bool) {
	for door, open := range map[*Door]bool{&d.MCP: !onAWS, &d.OpenAI: !onAWS, &d.AGUI: true} {
		if door.Enabled == nil {
			door.Enabled = &open
		}
	}
}
