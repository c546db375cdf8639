package input

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
)

func TestAnIntegerAboveItsMaximumIsAnError(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"limit=1000": "",
		"limit=1001": `{"type":"less_than_equal","loc":["query","limit"],` +
			`"msg":"Input should be less than or equal to 1000","input":"1001","ctx":{"le":1000}}`,
		"limit=0": `"type":"greater_than_equal"`,
	} {
		var into struct {
			Limit int `query:"limit" min:"1" max:"1000"`
		}
		err := Read(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/?"+query, nil), &into, nil)
		if want == "" {
			if err != nil || into.Limit != 1000 {
				t.Errorf("%s: %d, error %v", query, into.Limit, err)
			}
			continue
		}
		if _, _, body := fault.Answer(err); !strings.Contains(string(body), want) {
			t.Errorf("%s: %s lacks %s", query, body, want)
		}
	}
}
