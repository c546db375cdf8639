package fault

import (
	"net/http"
	"strings"
	"testing"
)

func TestAWrongQueryOrHeaderIs400InOpenAIsAPI(t *testing.T) {
	t.Parallel()
	for want, loc := range map[string][]any{
		`"message":"stream: no"`: {"query", "stream"}, `"message":"X-Session-Id: no"`: {"header", "X-Session-Id"},
		`"param":"stream"`: {"query", "stream"}, `"param":null`: {"header", "X-Session-Id"}, `"param":"body"`: {"body"},
	} {
		status, header, body := OpenAI(Fields(Field{Type: "value_error", Loc: loc, Msg: "no"}))
		if status != http.StatusBadRequest || !strings.Contains(string(body), want) ||
			header.Get("X-Should-Retry") != "false" {
			t.Errorf("%v: %d %v %s, want 400 and %s", loc, status, header, body, want)
		}
	}
}
