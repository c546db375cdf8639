// Command program is the keyway command with the two tools of the chaos harness. Each call asks the harness's server at
// $CHAOS_TOOLS_URL, which records it: note is called at once, pay only after a person has confirmed it.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/tool"
)

func main() {
	note, pay := recorded("note", "Takes a note."), recorded("pay", "Pays.")
	pay.Confirm = true
	cli.Main(cli.Options{Tools: []tool.Tool{note, pay}})
}

// recorded returns a tool that reports each of its calls to the harness, with the ids that it was called with.
func recorded(name, description string) tool.Tool {
	return tool.Func(name, description, func(ctx context.Context, in struct {
		Key string `json:"key"`
	}) (string, error) {
		caller := tool.CallerFrom(ctx)
		query := url.Values{"key": {in.Key}, "run": {caller.RunID}, "call": {caller.CallID}}
		address := os.Getenv("CHAOS_TOOLS_URL") + "/" + name + "?" + query.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil) // #nosec G704
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req) // #nosec G704 -- the harness names the server
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("the harness answers %s", resp.Status)
		}
		return string(answer), err
	})
}
