package acceptance

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// AgentOS 3.1.10 completes and stores twenty concurrent runs of one session, but loses
// updates of the session's total: it counts 14 to 72 of 280 to 530 tokens, in one process
// and in two, streamed or not. Keyway counts all of them.
func TestConcurrentRunsInOneSessionAllCount(t *testing.T) {
	t.Parallel()
	const runs, tokens = 20, 3 + 2 // "echo: run N", "run N"
	for _, processes := range []int{1, 2} {
		for stream, ended := range map[string]string{"false": `"COMPLETED"`, "true": "event: RunCompleted"} {
			t.Run(fmt.Sprintf("processes %d, stream %s", processes, stream), func(t *testing.T) {
				t.Parallel()
				model := modeltest.NewServerFunc(t, modeltest.Commands{}.Obey)
				servers := []*server{start(t, "quickstart", model)}
				if processes == 2 {
					servers = append(servers, start(t, "quickstart", model, "DATABASE_URL", servers[0].DB))
				}
				var all sync.WaitGroup
				for i := range runs {
					all.Go(func() {
						servers[i%processes].Run("ann", "assistant", "message", fmt.Sprint("echo: run ", i), "stream", stream,
							"session_id", "s").Want(t, "run", 200, ended)
					})
				}
				all.Wait()
				var kept []struct {
					Input   string `json:"run_input"`
					Metrics struct {
						Total int `json:"total_tokens"`
					}
				}
				if err := json.Unmarshal([]byte(servers[0].Get("ann", "/sessions/s/runs").Body), &kept); err != nil {
					t.Fatal(err)
				}
				inputs, sum := map[string]bool{}, 0
				for _, r := range kept {
					inputs[r.Input] = true
					sum += r.Metrics.Total
				}
				if len(kept) != runs || len(inputs) != runs {
					t.Errorf("%d runs with %d inputs are stored, want %d", len(kept), len(inputs), runs)
				}
				var session struct {
					Total int `json:"total_tokens"`
				}
				if err := json.Unmarshal([]byte(servers[0].Get("ann", "/sessions/s").Body), &session); err != nil {
					t.Fatal(err)
				}
				if session.Total != sum || sum < runs*tokens {
					t.Errorf("the session counts %d tokens, its runs %d", session.Total, sum)
				}
			})
		}
	}
}
