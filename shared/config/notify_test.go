package config_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

func TestAWebhookNeedsAnAddressAndASecret(t *testing.T) {
	t.Parallel()
	const good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for name, row := range map[string]struct{ notify, fault, warning string }{
		"whole":              {`{"url":"https://h/x","secret":"` + good + `"}`, "", ""},
		"all statuses":       {`{"url":"https://h","secret":"` + good + `","on":["paused","cancelled"]}`, "", ""},
		"on this machine":    {`{"url":"http://127.0.0.1:1/x","secret":"` + good + `"}`, "", ""},
		"without encryption": {`{"url":"http://h/x","secret":"` + good + `"}`, "", "notify.url"},
		"no secret":          {`{"url":"https://h"}`, "notify.secret", ""},
		"a short secret":     {`{"url":"https://h","secret":"whsec_aGVsbG8="}`, "notify.secret", ""},
		"no base64":          {`{"url":"https://h","secret":"whsec_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"}`, "notify.secret", ""},
		"no prefix":          {`{"url":"https://h","secret":"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}`, "notify.secret", ""},
		"no address":         {`{"secret":"` + good + `"}`, "notify.url", ""},
		"another scheme":     {`{"url":"ftp://h","secret":"` + good + `"}`, "notify.url", ""},
		"an unknown status":  {`{"url":"https://h","secret":"` + good + `","on":["ended"]}`, "notify.on[0]", ""},
	} {
		c, faults := config.Parse([]byte(`{"id":"os","auth":{"keys":["0123456789abcdef0123456789abcdef"]},`+
			`"agents":[{"id":"a","model":"demo:x"}],"notify":`+row.notify+`}`),
			config.Options{Lookup: func(string) (string, bool) { return "", false }})
		text := ""
		for _, f := range faults {
			text += f.String() + "\n"
		}
		if (row.fault == "") != (text == "") || !strings.HasPrefix(text, row.fault) {
			t.Errorf("%s: %q, want a fault of %q", name, text, row.fault)
		}
		if c == nil {
			continue
		}
		warned := ""
		for _, w := range c.Warnings {
			if strings.HasPrefix(w.Path, "notify") {
				warned = w.Path
			}
		}
		if warned != row.warning || c.Notify.Reports("PAUSED") != true || c.Notify.Reports("RUNNING") {
			t.Errorf("%s: warned of %q, %+v", name, warned, c.Notify.On)
		}
	}
}
