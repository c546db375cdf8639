package tool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/tooltest"
)

type order struct {
	Item  string   `json:"item" jsonschema:"what to order"`
	Count int      `json:"count,omitempty" jsonschema:"how many"`
	Tags  []string `json:"tags,omitempty"`
	Box   *struct {
		Wide bool `json:"wide"`
	} `json:"box,omitempty"`
}

// echo returns its arguments as text.
func echo(ctx context.Context, o order) (string, error) {
	return fmt.Sprintf("%s %d %v", o.Item, o.Count, o.Tags), ctx.Err()
}

func TestFuncFollowsTheRulesOfEveryTool(t *testing.T) {
	t.Parallel()
	tooltest.Run(t, tool.Func("order", "Order something.", echo), map[string]string{"order": `{"item":"tea"}`})
}

func TestTheSchemaDescribesTheStruct(t *testing.T) {
	t.Parallel()
	var got struct {
		Type                 string
		Required             []string
		Properties           map[string]struct{ Type, Description any }
		AdditionalProperties any
	}
	if err := json.Unmarshal(tool.Func("order", "", echo).Parameters, &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != "object" || len(got.Required) != 1 || got.Required[0] != "item" || len(got.Properties) != 4 ||
		got.Properties["item"].Type != "string" || got.Properties["item"].Description != "what to order" ||
		got.AdditionalProperties == nil {
		t.Errorf("schema %+v", got)
	}
	none := tool.Func("now", "", func(context.Context, struct{}) (string, error) { return "noon", nil })
	if !strings.Contains(string(none.Parameters), `"properties":{}`) {
		t.Errorf("the schema of no parameters is %s", none.Parameters)
	}
	if text, err := none.Call(t.Context(), nil); text != "noon" || err != nil {
		t.Errorf("a call without arguments: %q, %v", text, err)
	}
}

func TestTheErrorForInvalidArgumentsNamesTheField(t *testing.T) {
	t.Parallel()
	c := tool.Func("order", "", echo)
	for arguments, want := range map[string]string{
		`{}`:                               "item",
		`{"item":7}`:                       "item",
		`{"item":"tea","colour":"red"}`:    "colour",
		`{"ITEM":"tea"}`:                   "ITEM",
		`{"item":"tea","count":"two"}`:     "count",
		`{"item":"tea","count":1.5}`:       "count",
		`{"item":"tea","count":1e30}`:      "count",
		`{"item":"tea","tags":[1]}`:        "tags",
		`{"item":"tea","box":{}}`:          "wide",
		`{"item":"tea","box":{"wide":"x"}`: "not JSON",
	} {
		text, err := c.Call(t.Context(), json.RawMessage(arguments))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "arguments of order: ") {
			t.Errorf("%s: %q, %v, want an error with %q", arguments, text, err, want)
		}
	}
	text, err := c.Call(t.Context(), json.RawMessage(`{"item":"tea","count":2,"tags":["a"]}`))
	if text != "tea 2 [a]" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestJSONEncodesTheResult(t *testing.T) {
	t.Parallel()
	c := tool.JSON("look", "", func(context.Context, struct{}) (map[string]string, error) {
		return map[string]string{"a": "<b>"}, nil
	})
	if text, err := c.Call(t.Context(), nil); text != `{"a":"<b>"}` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	bad := tool.JSON("look", "", func(context.Context, struct{}) (any, error) { return func() {}, nil })
	if _, err := bad.Call(t.Context(), nil); err == nil {
		t.Error("a result that is not JSON is not an error")
	}
}

func TestFuncPanicsOnAMistakeInTheProgram(t *testing.T) {
	t.Parallel()
	for want, build := range map[string]func(){
		"use a struct":   func() { tool.Func("f", "", func(context.Context, int) (string, error) { return "", nil }) },
		"with fields":    func() { tool.Func("f", "", func(context.Context, time.Time) (string, error) { return "", nil }) },
		`the name "a b"`: func() { tool.Func("a b", "", echo) },
		"the parameters of ": func() {
			tool.Func("f", "", func(context.Context, struct{ C chan int }) (string, error) { return "", nil })
		},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("the panic is %q, want %q", got, want)
				}
			}()
			build()
		}()
	}
}

// ValidName is written as a loop. It must accept the same names as the regular expression.
func TestAValidNameHasUpTo64PlainCharacters(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	names := []string{"", strings.Repeat("a", 64), strings.Repeat("a", 65), "é", "a\n", "aé"}
	for c := range 256 {
		names = append(names, string([]byte{byte(c)}), string([]byte{'a', byte(c), 'Z'}))
	}
	for _, name := range names {
		if got, want := tool.ValidName(name), pattern.MatchString(name); got != want {
			t.Errorf("ValidName(%q) = %t, want %t", name, got, want)
		}
	}
}
