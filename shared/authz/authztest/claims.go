package authztest

import "strings"

// Reader is a second implementation of the reading of a token: which scopes its claims give, and whether it is a token
// for an API at all. Its input is what encoding/json reads from the file and from the token, so that it shares neither
// types nor parsers with the first implementation. Give it a file that config.Parse accepts, without variables.
type Reader struct {
	Auth  map[string]any // auth of keyway.yaml
	Entry map[string]any // the entry of auth.keys whose key verified the token
}

// Scopes returns the scopes that the claims give, each with all the places that it is from: "claim", or "claim=role".
func (r Reader) Scopes(token map[string]any) map[string][]string {
	found := map[string][]string{}
	prefix, _ := r.Entry["prefix"].(string)
	for _, s := range r.sources("scopes", "scopes") {
		for _, value := range s.values(token) {
			if strings.HasPrefix(value, prefix) {
				scope := value[len(prefix):]
				found[scope] = append(found[scope], s.label)
			}
		}
	}
	grants, own := r.Entry["grants"].(map[string]any)
	if !own {
		grants, _ = r.Auth["grants"].(map[string]any)
	}
	for _, s := range r.sources("roles") {
		for _, role := range s.values(token) {
			list, _ := grants[role].([]any)
			for _, scope := range list {
				found[scope.(string)] = append(found[scope.(string)], s.label+"="+role)
			}
		}
	}
	delete(found, "") // names no scope
	return found
}

// Limit is a limit of the caller, with all the places that it can be from: "claim=role", "*", or the claim with limits.
type Limit struct {
	Value float64
	From  []string
}

// limitNames are the limits, with the smallest value that a claim can have.
var limitNames = map[string]float64{
	"concurrent_runs": 1, "waiting_runs": 1, "runs_per_minute": 1, "runs_per_day": 1, "tokens_per_run": 1,
	"tokens_per_day": 1, "usd_per_day": 0.000001,
}

// Limits returns the limits that apply to the caller. ok is false for a token whose own limits are malformed. An
// unknown member of them limits nothing.
func (r Reader) Limits(token map[string]any) (limits map[string]Limit, ok bool) {
	table, own := r.Entry["limits"].(map[string]any)
	if !own {
		table, _ = r.Auth["limits"].(map[string]any)
	}
	limits = map[string]Limit{}
	for name := range limitNames {
		var found Limit
		for _, s := range r.sources("roles") {
			for _, role := range s.values(token) {
				row, _ := table[role].(map[string]any)
				value, set := row[name].(float64)
				switch {
				case role == "*" || !set || value < found.Value:
				case value == found.Value:
					found.From = append(found.From, s.label+"="+role)
				default:
					found = Limit{value, []string{s.label + "=" + role}}
				}
			}
		}
		everyone, _ := table["*"].(map[string]any)
		if value, set := everyone[name].(float64); set && found.Value == 0 {
			found = Limit{value, []string{"*"}}
		}
		if found.Value > 0 {
			limits[name] = found
		}
	}
	for _, s := range r.sources("limits") {
		value := s.at(token)
		claim, isObject := value.(map[string]any)
		if value != nil && !isObject {
			return nil, false
		}
		for name, least := range limitNames {
			written, present := claim[name]
			n, isNumber := written.(float64)
			whole := name == "usd_per_day" || n == float64(int64(n))
			switch {
			case !present:
			case !isNumber || n < least || n > 1e12 || !whole:
				return nil, false
			case limits[name].Value == 0 || n < limits[name].Value:
				limits[name] = Limit{n, []string{s.label}}
			}
		}
	}
	return limits, true
}

// source is one place in the claims.
type source struct {
	path  []string
	split bool
	label string
}

// sources returns the places with this name in the claims of the entry, else in those of auth, else the default.
func (r Reader) sources(name string, byDefault ...string) (all []source) {
	var written any
	for _, from := range []map[string]any{r.Entry, r.Auth} {
		claims, _ := from["claims"].(map[string]any)
		if written == nil {
			written = claims[name]
		}
	}
	for _, d := range byDefault {
		if written == nil {
			written = d
		}
	}
	if written == nil {
		return nil
	}
	list, isList := written.([]any)
	if !isList {
		list = []any{written}
	}
	for _, one := range list {
		all = append(all, sourceOf(one))
	}
	return all
}

func sourceOf(written any) source {
	fields, isObject := written.(map[string]any)
	if !isObject {
		fields = map[string]any{"claim": written}
	}
	var s source
	name, isName := fields["claim"].(string)
	if isName {
		s.path = []string{name}
	}
	path, _ := fields["path"].([]any)
	for _, p := range path {
		s.path = append(s.path, p.(string))
	}
	s.label = strings.Join(s.path, ".")
	s.split = isName && (name == "scope" || name == "scp")
	if chosen, ok := fields["split"].(bool); ok {
		s.split = chosen
	}
	return s
}

// at returns what is at the place, or nil.
func (s source) at(token map[string]any) (at any) {
	at = token
	for _, name := range s.path {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	return at
}

// values returns the texts at the place. A list with anything but texts has none.
func (s source) values(token map[string]any) (out []string) {
	switch found := s.at(token).(type) {
	case string:
		if !s.split {
			return []string{found}
		}
		word := ""
		for _, c := range found + " " {
			if c != ' ' {
				word += string(c)
			} else if word != "" {
				out, word = append(out, word), ""
			}
		}
	case []any:
		for _, element := range found {
			text, ok := element.(string)
			if !ok {
				return nil
			}
			out = append(out, text)
		}
	}
	return out
}

// Accepts reports whether the rules about kinds of tokens and about clients accept the token.
func (r Reader) Accepts(header, token map[string]any) bool {
	accepted := map[any]bool{}
	list, _ := r.Entry["accept"].([]any)
	for _, kind := range list {
		accepted[kind] = true
	}
	typ, ok := "", true
	if header["typ"] != nil {
		typ, ok = header["typ"].(string)
	}
	switch typ = lower(typ); {
	case !ok, token["cnf"] != nil && !accepted["bound"], isLogout(token):
		return false
	case typ == "", typ == "jwt", typ == "at+jwt", typ == "application/jwt", typ == "application/at+jwt":
		return r.acceptsClient(token) && (accepted["id_token"] || !isIDToken(typ, token))
	}
	return false
}

func isLogout(token map[string]any) bool {
	events, _ := token["events"].(map[string]any)
	typ, _ := token["typ"].(string)
	return events["http://schemas.openid.net/event/backchannel-logout"] != nil || lower(typ) == "logout" ||
		lower(typ) == "logout+jwt"
}

func isIDToken(headerTyp string, token map[string]any) bool {
	typ, _ := token["typ"].(string)
	use, _ := token["token_use"].(string)
	if lower(typ) == "id" || lower(use) == "id" {
		return true
	}
	marks := []bool{
		strings.HasSuffix(headerTyp, "at+jwt"), lower(typ) == "bearer", lower(use) == "access",
		token["scope"] != nil, token["scp"] != nil, token["client_id"] != nil,
	}
	for _, mark := range marks {
		if mark {
			return false
		}
	}
	return token["at_hash"] != nil || token["nonce"] != nil
}

func (r Reader) acceptsClient(token map[string]any) bool {
	clients, limited := r.Entry["clients"].([]any)
	present := 0
	for _, name := range []string{"azp", "client_id", "cid"} {
		if token[name] == nil {
			continue
		}
		present++
		ours := false
		for _, c := range clients {
			text, isText := token[name].(string)
			ours = ours || isText && text == c
		}
		if !ours && limited {
			return false
		}
	}
	return present > 0 || !limited
}

// lower returns the text with ASCII letters in lower case.
func lower(text string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, text)
}
