package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/providers"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// maxSkew is the difference of two clocks from which doctor warns.
const maxSkew = 5 * time.Second

// keys checks the keys and the issuers.
func (x *examination) keys(ctx context.Context, f *findings) {
	cfg := *x.cfg // addDevKey changes it
	if err := x.addDevKey(&cfg, false); err != nil {
		f.fault("auth.keys", "name a key in auth.keys and set its variable",
			"no key verifies tokens, except with serve --dev")
		return
	}
	authorizer, err := x.authorizer(&cfg)
	if err != nil {
		f.failed("auth.keys", err, "correct auth.keys")
		return
	}
	broken := map[string]bool{}
	for _, err := range authorizer.Verifier.Fetch(ctx) {
		name, _, _ := strings.Cut(err.Error(), ":")
		broken[name] = true
		f.failed("auth."+name, errors.New(strings.TrimPrefix(err.Error(), name+": ")),
			"correct its address in auth.keys, or repair the issuer: until then its tokens are answered 503")
	}
	for i, key := range cfg.Auth.Keys {
		if broken[fmt.Sprintf("keys[%d]", i)] {
			continue
		}
		f.ok(entryOf(x.cfg, i), "%s", keyKind(key))
	}
	const most = 10
	for i, p := range authorizer.Verifier.PassedOver() {
		if i == most {
			f.warning("auth.keys", "see keyway config check --fetch", "more keys are passed over")
			break
		}
		f.warning("auth."+p.Source, "correct it at the issuer, if tokens are signed with it", "%s",
			strings.TrimPrefix(p.String(), p.Source+": "))
	}
	x.clocks(authorizer, f)
}

// keyKind says where a key comes from.
func keyKind(k config.Key) string {
	host := func(address string) string {
		if u, err := url.Parse(address); err == nil {
			return u.Host
		}
		return "its address"
	}
	switch {
	case k.JWKSURL != "":
		return "fetched from " + host(k.JWKSURL)
	case k.Discovery != "":
		return "fetched by the discovery of " + host(k.Discovery)
	case k.Secret != "":
		return "read from AWS Secrets Manager"
	case k.JWKSFile != "":
		return "read from a file"
	}
	return "a key of the file or of a variable"
}

// clocks compares the clocks of the issuers with the one here. Tokens that were issued or expire a moment ago depend on
// them.
func (x *examination) clocks(a *edge.Authorizer, f *findings) {
	for _, c := range a.Verifier.Clocks() {
		direction, off := "ahead of", c.Ahead
		if off < 0 {
			direction, off = "behind", -off
		}
		const remedy = "synchronize this machine's clock (NTP); if it is right, the issuer's is wrong"
		switch off = off.Round(time.Second); {
		case off > x.cfg.Auth.Leeway:
			f.fault("clock", remedy, "the clock of auth.%s is %s %s this one, more than auth.leeway (%s): its tokens "+
				"are refused when they are new, or accepted too long", c.Source, off, direction, x.cfg.Auth.Leeway)
		case off > maxSkew:
			f.warning("clock", remedy, "the clock of auth.%s is %s %s this one", c.Source, off, direction)
		default:
			f.ok("clock", "the clock of auth.%s agrees with this one", c.Source)
		}
	}
}

// distinct is a model that some agents share.
type distinct struct {
	name    string
	address string
	model   model.Model
	err     error
}

// distinctModels opens the models of all agents, each once.
func (x *examination) distinctModels() (all []distinct) {
	seen := map[string]bool{}
	inFile := len(x.own.declaredInFile(x.cfg))
	for i, a := range x.cfg.Agents {
		d := distinct{}
		if i >= inFile {
			d.model = x.own.Agents[i-inFile].Model
			d.name = "agent " + a.ID
		} else {
			d.model, d.err = agents.OpenModel(x.cfg, i, x.lookup)
			d.name, d.address = a.Model.Provider+":"+a.Model.ID, providers.Address(a.Model, x.lookup)
		}
		if id := fmt.Sprint(d.name, "\n", d.address, "\n", d.err != nil); !seen[id] {
			seen[id] = true
			all = append(all, d)
		}
	}
	return all
}

// models checks the keys and the servers of the models.
func (x *examination) models(ctx context.Context, f *findings) {
	all := x.distinctModels()
	each(len(all), f, func(i int, f *findings) { x.model(ctx, all[i], f) })
}

func (x *examination) model(ctx context.Context, d distinct, f *findings) {
	if d.err != nil {
		detail, remedy, ok := strings.Cut(d.err.Error(), ": ")
		if !ok {
			remedy = "set it, or the agent can't run"
		}
		f.fault(d.name, remedy, "%s", detail)
		return
	}
	if d.address != "" {
		if err := reach(ctx, d.address); err != nil {
			f.fault(d.name, "check base_url or its variable, the network and the proxy", "%s can't be reached: %v",
				config.URL(d.address), err)
			return
		}
		f.ok(d.name, "has what it needs, and %s answers", config.URL(d.address))
	} else {
		f.ok(d.name, "has what it needs")
	}
	if !x.AskModels {
		return
	}
	began := time.Now()
	used, err := askModel(ctx, d.model)
	if err != nil {
		f.failed(d.name, err, "check the key, the name of the model, and the account at the provider")
		return
	}
	f.ok(d.name, "answered in %s with %d input and %d output tokens", time.Since(began).Round(time.Millisecond),
		used.Input, used.Output)
}

// reach sends a request without a key. Any answer will do.
func reach(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return errors.New("it is no address")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if inner, ok := errors.AsType[*url.Error](err); ok {
		return inner.Err // without the address, whose query may have a key
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// askModel sends a model one short request.
func askModel(ctx context.Context, m model.Model) (used model.Usage, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTime, fmt.Errorf("there was no answer within %s; ask again, a "+
		"model that was not loaded yet needs longer", checkTime))
	defer cancel()
	question := model.Message{Role: model.User, Content: "Answer with the word ok."}
	request := model.Request{Messages: []model.Message{question}, Whole: true}
	for part, err := range m.Stream(ctx, request) {
		if err != nil {
			return used, err
		}
		if part.End != nil {
			used = part.End.Usage
		}
	}
	return used, nil
}

// offered is what one entry of tools offers.
type offered struct {
	at    string
	about *config.MCP // nil for other tools
	tools []tool.Tool
	took  time.Duration
	err   error
}

// mcp connects to the MCP servers, and looks for tools of one agent with the same name.
func (x *examination) mcp(ctx context.Context, f *findings) {
	var entries []*offered
	byAgent := map[string][]*offered{}
	known := map[string]*offered{} // by what is sent to the server
	options := builtin.Options{Egress: tool.Egress{Allow: x.cfg.Egress.Allow}, Lookup: x.lookup, Own: x.own.Tools}
	sets := map[*offered]tool.Set{}
	for i, a := range x.own.declaredInFile(x.cfg) {
		for j, t := range a.Tools {
			o := &offered{at: config.Element(config.Element("agents", i)+".tools", j), about: t.MCP}
			id := t.Name
			if t.MCP != nil {
				id = fmt.Sprintf("%s %q %q", string(t.MCP.URL), t.MCP.Allow, headersOf(t.MCP))
			}
			if same := known[id]; same != nil {
				byAgent[a.ID] = append(byAgent[a.ID], same)
				continue
			}
			known[id] = o
			byAgent[a.ID] = append(byAgent[a.ID], o)
			entries = append(entries, o)
			sets[o], o.err = builtin.Open(t, options)
		}
	}
	each(len(entries), f, func(i int, f *findings) { entries[i].list(ctx, sets[entries[i]], f) })
	for _, a := range x.cfg.Agents {
		collisions(a.ID, byAgent[a.ID], f)
	}
	if len(f.list) == 0 {
		f.ok("servers", "no agent uses an MCP server")
	}
}

// headersOf returns the headers of a server with their values, to compare servers.
func headersOf(m *config.MCP) map[string]string {
	values := map[string]string{}
	for name, v := range m.Headers {
		values[name] = string(v)
	}
	return values
}

// list lists the tools of an entry.
func (o *offered) list(ctx context.Context, set tool.Set, f *findings) {
	if o.err == nil {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		began := time.Now()
		o.tools, o.err = set.Tools(ctx)
		o.took = time.Since(began)
		_ = set.Close()
	}
	switch {
	case o.err != nil:
		f.failed(o.at, o.err, "check its address and headers, and whether the server runs")
	case o.about != nil:
		f.ok(o.at, "%s in %s", counted(len(o.tools), "tool"), o.took.Round(time.Millisecond))
		for _, t := range o.tools {
			if t.Unfit != "" {
				f.warning(o.at, "correct it at the server, or leave it out of mcp.allow", "the tool %s is left out: it %s",
					t.Name, t.Unfit)
			}
		}
	}
}

// collisions warns of tools of one agent with the same name. The first one is offered to the model.
func collisions(agent string, entries []*offered, f *findings) {
	first := map[string]string{}
	for _, o := range entries {
		for _, t := range o.tools {
			if at, taken := first[t.Name]; taken {
				f.warning(o.at, "name the tools to use in mcp.allow",
					"the tool %s of agent %s is left out: %s has one of this name", t.Name, agent, at)
				continue
			}
			first[t.Name] = o.at
		}
	}
}

// each calls check for 0 to n-1, a few at the same time, and adds the findings in this order.
func each(n int, f *findings, check func(i int, f *findings)) {
	const atOnce = 8
	parts := make([]findings, n)
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range n {
		parts[i].area = f.area
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			check(i, &parts[i])
		})
	}
	wg.Wait()
	for _, p := range parts {
		f.list = append(f.list, p.list...)
	}
}
