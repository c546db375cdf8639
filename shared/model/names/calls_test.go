package names_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
)

// asking returns an assistant's message with calls of these IDs. The calls are named "0", "1" and so on.
func asking(ids ...string) model.Message {
	m := model.Message{Role: model.Assistant}
	for i, id := range ids {
		m.ToolCalls = append(m.ToolCalls, model.ToolCall{ID: id, Name: strconv.Itoa(i)})
	}
	return m
}

// answering returns a tool's message.
func answering(id, content string) model.Message {
	return model.Message{Role: model.ToolRole, ToolCallID: id, Content: content}
}

func TestRepeatedIDsOfCallsBecomeDistinct(t *testing.T) {
	t.Parallel()
	user := model.Message{Role: model.User, Content: "hi"}
	messages := []model.Message{
		user, asking("", "x", ""), answering("x", "b"), answering("", "a"), answering("", "c"),
		asking("x"), answering("x", "d"),
	}
	before := fmt.Sprint(messages)
	got := names.Calls(messages, names.Fitting)
	want := []model.Message{
		user, asking("call00001", "x", "call00002"),
		answering("x", "b"), answering("call00001", "a"), answering("call00002", "c"),
		asking("call00003"), answering("call00003", "d"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if fmt.Sprint(messages) != before {
		t.Errorf("the messages of the caller were changed: %v", messages)
	}
}

func TestACallWithoutAResultGetsOneAndAResultWithoutACallIsLeftOut(t *testing.T) {
	t.Parallel()
	got := names.Calls([]model.Message{
		answering("a", "early"), asking("a", "b"), answering("b", "1"), answering("b", "again"), answering("c", "other"),
		{Role: model.User}, answering("a", "late"), asking("d"),
	}, names.Fitting)
	const missing = "The result of this call was not stored."
	want := []model.Message{
		asking("a", "b"), answering("b", "1"), answering("a", missing),
		{Role: model.User}, asking("d"), answering("d", missing),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestAnIDThatIsUsedAlreadyOrDoesNotFitIsReplaced(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("z", 64)
	got := names.Calls([]model.Message{
		asking("call00001", "", "x", "x", "a.b", "a\x00"), asking("x", "y", long, long+"z"),
	}, names.Fitting)
	var ids []string
	for _, m := range got {
		for _, c := range m.ToolCalls {
			ids = append(ids, c.ID)
		}
	}
	want := []string{
		"call00001", "call00002", "x", "call00003", "call00004", "call00005", "call00006", "y", long, "call00007",
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}
}

// drawnConversation returns a conversation in which each call has one result, with few different IDs, and the results
// of one message in any order of the IDs. Results name the place of their call, so that the test can recognise the
// pairs.
func drawnConversation(t *rapid.T) (messages []model.Message) {
	ids := rapid.SampledFrom([]string{"", "x", "y", "call00001", "call00002", "a\x00b", strings.Repeat("z", 53)})
	for step := range rapid.IntRange(0, 6).Draw(t, "steps") {
		if rapid.Bool().Draw(t, "user") {
			messages = append(messages, model.Message{Role: model.User, Content: "hi"})
		}
		m := asking(rapid.SliceOfN(ids, 0, 5).Draw(t, "ids")...)
		m.Content = strconv.Itoa(step)
		messages = append(messages, m)
		results := make([]model.Message, len(m.ToolCalls))
		for i, c := range m.ToolCalls {
			results[i] = answering(c.ID, fmt.Sprintf("%d/%d", step, i))
		}
		order := rapid.Permutation([]string{"", "x", "y", "call00001", "call00002"}).Draw(t, "order")
		slices.SortStableFunc(results, func(a, b model.Message) int {
			return slices.Index(order, a.ToolCallID) - slices.Index(order, b.ToolCallID)
		})
		messages = append(messages, results...)
	}
	return messages
}

func TestEachCallHasAnIDOfItsOwnAndExactlyOneResult(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		messages := drawnConversation(t)
		wanted, pattern := names.Fitting, pattern
		if rapid.Bool().Draw(t, "new") {
			wanted, pattern = func(model.Message) []string { return nil }, regexp.MustCompile(`^[a-zA-Z0-9]{9}$`)
		}
		damaged := rapid.Bool().Draw(t, "damaged")
		if damaged { // lose a message, so that calls or results are alone
			if i := rapid.IntRange(0, len(messages)).Draw(t, "lost"); i < len(messages) {
				messages = slices.Delete(messages, i, i+1)
			}
		} else if got := names.Calls(messages, wanted); len(got) != len(messages) {
			t.Fatalf("%d messages became %d", len(messages), len(got))
		}
		got := names.Calls(messages, wanted)
		calls := map[string]string{} // the place of each call without a result, by ID
		seen := map[string]bool{}
		for _, m := range got {
			if m.Role == model.ToolRole {
				place, ok := calls[m.ToolCallID]
				if !ok || place != m.Content && !damaged {
					t.Fatalf("the result %q is the result of the call at %q", m.Content, place)
				}
				delete(calls, m.ToolCallID)
				continue
			}
			if len(calls) > 0 {
				t.Fatalf("calls without results: %v", calls)
			}
			for i, c := range m.ToolCalls {
				if seen[c.ID] || !pattern.MatchString(c.ID) {
					t.Fatalf("the ID %q repeats or has another form", c.ID)
				}
				seen[c.ID], calls[c.ID] = true, fmt.Sprintf("%s/%d", m.Content, i)
			}
		}
		if len(calls) > 0 {
			t.Fatalf("calls without results: %v", calls)
		}
		if again := names.Calls(got, wanted); !cmp.Equal(got, again) {
			t.Fatalf("IDs change when they are fitted again:\n%s", cmp.Diff(got, again))
		}
	})
}
