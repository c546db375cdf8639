package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RoleLimits are the limits of the callers with a role. The name AnyRole stands for every caller.
type RoleLimits map[string]Limits

// AnyRole is the name in RoleLimits that stands for every caller.
const AnyRole = "*"

// Prices are the prices of models, by their ids.
type Prices map[string]Price

// Of returns the price of a model. ok is false if the file has none.
func (p Prices) Of(m Model) (price Price, ok bool) {
	if m.Provider == "demo" {
		return Price{}, true
	}
	if price, ok = p[m.Provider+":"+m.ID]; !ok {
		price, ok = p[m.ID]
	}
	return price, ok
}

// LimitsOf returns the limits by role of the callers with tokens of k: its own ones, or those of auth.
func (a Auth) LimitsOf(k Key) RoleLimits {
	if k.Limits != nil {
		return k.Limits
	}
	return a.Limits
}

// checkLimits checks the limits by role of auth and of each key, and that what costs are limited has a price.
func (d *decoder) checkLimits(a *Auth) {
	d.checkRoleLimits("auth.limits", a.Limits)
	readers, shared := 0, []string(nil)
	for i, k := range a.Keys {
		path := Element("auth.keys", i)
		d.checkRoleLimits(path+".limits", k.Limits)
		reads := len(a.ClaimsOf(k).Roles) > 0
		switch {
		case k.hasNoSource():
		case reads:
			readers++
			if k.Limits == nil && k.Literal == "" {
				shared = append(shared, path)
			}
		case k.Limits.byRole() && d.clean(path):
			d.warn(path+".limits", "has roles, which have no effect, because no claim with roles is read", "add roles to claims")
		}
	}
	if !a.Limits.byRole() {
		return
	}
	if readers > 1 { // the group "gold" of one issuer must not be that of another by accident
		for _, path := range shared {
			d.fault(path, "reads roles, and so does another entry, so it needs limits of its own",
				"add limits to this entry; {} limits nothing")
		}
	}
	if readers == 0 && len(a.Claims.Roles) == 0 && d.clean("auth.limits") {
		d.warn("auth.limits", "has roles, which have no effect, because no claim with roles is read",
			"add roles to auth.claims")
	}
}

// byRole reports whether there are limits for a role, and not only for every caller.
func (all RoleLimits) byRole() bool {
	_, any := all[AnyRole]
	return len(all) > 1 || len(all) == 1 && !any
}

// checkRoleLimits checks the names, and that each has a limit.
func (d *decoder) checkRoleLimits(path string, all RoleLimits) {
	for _, role := range slices.Sorted(maps.Keys(all)) {
		at := Member(path, role)
		switch {
		case role == "":
			d.fault(path, "has an empty name", "name a role or group, or * for every caller")
		case strings.Contains(role, "${"):
			d.fault(at, "has a variable in its name, and names can't hold variables", "write the name itself")
		case all[role] == Limits{} && d.clean(at):
			d.fault(at, "limits nothing", "write a limit, or remove the line: a role without one has the limits of *")
		}
	}
}

// checkPrices requires the price of each model whose cost is limited. A claim can limit the cost too, but whether a
// token has one is not known here, so that a missing price is only a warning then.
func (d *decoder) checkPrices(c *Config) {
	for _, id := range slices.Sorted(maps.Keys(c.Prices)) {
		if at := Member("prices", id); id == "" || strings.Contains(id, "${") {
			d.fault(at, "is no id of a model", "write it as in model, without variables")
		}
	}
	ofAll, byClaim := d.costLimit(c)
	for i, a := range slices.Concat(c.Agents, d.Agents) {
		at, limit := Element("agents", i), ofAll
		if i >= len(c.Agents) {
			at = fmt.Sprintf("the agent %q declared in Go", a.ID)
		}
		if a.Limits.USDPerDay > 0 {
			limit = at + ".limits"
		}
		if _, ok := c.Prices.Of(a.Model); ok || a.Model.ID == "" && i < len(c.Agents) || !d.clean("prices") {
			continue
		}
		remedy := fmt.Sprintf("add prices: {%q: {input: USD, output: USD}}, in US dollars for 1,000,000 tokens",
			a.Model.Provider+":"+a.Model.ID)
		switch {
		case limit != "":
			d.fault(at+".model", "has no price, and "+limit+" has usd_per_day", remedy)
		case byClaim != "":
			d.warn(at+".model", "has no price, so that its runs cost nothing of a usd_per_day in "+byClaim, remedy)
		}
	}
}

// costLimit returns the path of limits that limit the cost of all agents, and that of a claim that can.
func (d *decoder) costLimit(c *Config) (path, claim string) {
	if c.Limits.USDPerDay > 0 {
		return "limits", ""
	}
	byRole := map[string]RoleLimits{"auth.limits": c.Auth.Limits}
	if c.Auth.Claims.Limits.Names() != nil {
		claim = "auth.claims.limits"
	}
	for i, k := range c.Auth.Keys {
		at := Element("auth.keys", i)
		byRole[at+".limits"] = k.Limits
		if k.Claims.Limits.Names() != nil {
			claim = at + ".claims.limits"
		}
	}
	for _, at := range slices.Sorted(maps.Keys(byRole)) {
		for _, role := range slices.Sorted(maps.Keys(byRole[at])) {
			if byRole[at][role].USDPerDay > 0 {
				return Member(at, role), claim
			}
		}
	}
	return "", claim
}
