package input

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
)

// hostile are bodies that are small for what they make a careless reader allocate.
var hostile = map[string]struct {
	into any
	kind string
	body string
	want string // a part of the answer
}{
	"5,190,000 topics of a wrong type": {
		&boundedMemory{}, "application/json", `{"memory":"x","topics":[1` + strings.Repeat(",1", 5_190_000) + `]}`,
		"List should have at most 50 items after validation, not 5190001",
	},
	"2,000,000 ids of a wrong type": {
		&boundedIDs{}, "application/json", `{"session_ids":[1` + strings.Repeat(",1", 2_000_000) + `]}`,
		"List should have at most 1000 items after validation, not 2000001",
	},
	"1,480,000 texts in place of files": {
		&boundedForm{}, formKind, "message=x" + strings.Repeat("&files=", 1_480_000),
		"at most 1000 fields are accepted, not 1480001",
	},
	"130,000 files": {
		&boundedForm{}, multipartKind, strings.Repeat(
			"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a\"\r\n\r\nz\r\n", 130_000) + "--X--\r\n",
		"at most 1000 fields are accepted, not 1001",
	},
	"900,000 members": {
		&boundedMemory{}, "application/json", `{"memory":"x"` + manyMembers(900_000) + `}`,
		"at most 1000 members are accepted, not 900001",
	},
	"10,000,000 opening brackets": {
		&boundedMemory{}, "application/json", `{"memory":"x","topics":` + strings.Repeat("[", 10_000_000),
		"Nesting is too deep",
	},
	"a message of 10 MB": {
		&boundedForm{}, formKind, "message=" + strings.Repeat("x", 10_000_000),
		"String should have at most 1048576 bytes, not 10000000",
	},
	"a file of 10 MB": {
		&boundedForm{}, multipartKind, "--X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nx\r\n" +
			"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a\"\r\n\r\n" + strings.Repeat("x", 10_000_000) +
			"\r\n--X--\r\n",
		"a file should have at most 2097152 bytes, not 10000000",
	},
}

type (
	boundedMemory struct {
		Body struct {
			Memory string   `json:"memory" required:"true"`
			Topics []string `json:"topics" bound:"topics" each:"topic"`
		} `body:"json"`
	}
	boundedIDs struct {
		Body struct {
			IDs []string `json:"session_ids" required:"true" bound:"elements" each:"short_text"`
		} `body:"json"`
	}
	boundedForm struct {
		Message string `form:"message" required:"true" bound:"message"`
		Files   []File `form:"files" bound:"files"`
	}
)

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	return b.String()
}

// The test isn't parallel, because it measures what the process allocates. io.ReadAll alone allocates five times the
// body, and a few copies follow.
//
//nolint:paralleltest // it measures the process
func TestAHostileBodyCostsBoundedMemoryAndGetsASmallAnswer(t *testing.T) {
	for name, h := range hostile {
		var before, after runtime.MemStats
		body := strings.NewReader(h.body)
		runtime.ReadMemStats(&before)
		err := ask(h.into, h.kind, body, int64(len(h.body)))
		status, _, answer := fault.Answer(err)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes allocate %d", name, len(h.body), allocated)
		if status != 422 || !strings.Contains(string(answer), h.want) || len(answer) > 1000 {
			t.Errorf("%s: %d with %d bytes: %.300s", name, status, len(answer), answer)
		}
		if allocated > 20*uint64(bound.Body.Default) { // 9 times; with the race detector 15 times
			t.Errorf("%s: a body of %d bytes allocated %d", name, len(h.body), allocated)
		}
	}
}

func TestAnAnswerListsTwentyWrongInputsAndTheirNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		20: `"input":1}]}`, 21: `"input":1}],"total":21}`, 1000: `"input":1}],"total":1000}`,
	} {
		body := `{"session_ids":[1` + strings.Repeat(",1", n-1) + `]}`
		status, _, answer := fault.Answer(ask(new(boundedIDs), "application/json", strings.NewReader(body), -1))
		if status != 422 || bytes.Count(answer, []byte("string_type")) != 20 || !strings.HasSuffix(string(answer), want) {
			t.Errorf("%d wrong elements: %d %s", n, status, answer)
		}
	}
}

func TestASettingReplacesTheDefaultOfABound(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/", strings.NewReader("message=hello"))
	r.Header.Set("Content-Type", formKind)
	err := Read(httptest.NewRecorder(), r, new(boundedForm), bound.Limits{bound.Message.Name: 4})
	if _, _, answer := fault.Answer(err); !strings.Contains(string(answer), "at most 4 bytes, not 5") {
		t.Errorf("%s", answer)
	}
}
