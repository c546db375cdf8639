package acceptance

import (
	"fmt"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// echoModel is a model that answers every request with the user's last message.
func echoModel(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, ok := r.Body["messages"].([]any)
		if !ok { // the Responses API calls them input
			messages, _ = r.Body["input"].([]any)
		}
		last, _ := messages[len(messages)-1].(map[string]any)
		return modeltest.Text("you said ", fmt.Sprint(last["content"]))
	})
}
