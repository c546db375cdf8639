package api

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// mergeMemories is the input of POST /optimize-memories. AgentOS requires user_id even of
// a caller whose token names the user.
type mergeMemories struct {
	database
	Body struct {
		User  string `json:"user_id" required:"true" bound:"short_text" doc:"The user whose memories are merged. Callers not allowed to see all users always merge their own."`
		Model string `json:"model" bound:"short_text" doc:"The model of a declared agent, as provider:id. Defaults to the model of the first agent."`
		Apply *bool  `json:"apply" doc:"Whether the merged memory replaces the others. With false it is only returned. Defaults to true."`
	} `body:"json"`
}

// maxMerged is how many memories one merge accepts. A model reads all of them in one
// request, so the number bounds the size of that request and its cost.
const maxMerged = 500

// merge has a model rewrite all memories of a user as one. It belongs to the runs, not
// to the memories, because only the function of the runs has models.
//
// The store replaces the memories only if none of them has changed since they were
// read; else the answer is 409 and nothing changes.
func (a Runs) merge(ctx context.Context, r *request, in mergeMemories) (wire.MergedMemories, error) {
	var none wire.MergedMemories
	viewer, err := a.Isolation.viewerIn(r, in.database)
	if err != nil {
		return none, err
	}
	owner := in.Body.User
	if !viewer.All {
		owner = viewer.Owner
	}
	if viewer.All && owner == "" { // The memories of all users must not become one.
		return none, fault.Fields(fault.Field{
			Type: "string_too_short", Loc: []any{"body", "user_id"}, Msg: "String should have at least 1 character",
			Input: "", Ctx: fault.Members{{Name: "min_length", Value: 1}},
		})
	}
	r.audit.Owner(owner)
	// The oldest comes first: when memories contradict each other, the model reads the newer
	// one last.
	old, total, err := a.DB.Memories(ctx, viewer, store.MemoryQuery{
		Owner: owner, SortBy: "created_at", Ascending: true, Limit: maxMerged, Page: 1,
	})
	switch {
	case err != nil:
		return none, err
	case total == 0:
		return none, fault.Public(fault.NotFound, "No memories found for user "+owner, nil)
	case total > maxMerged:
		return none, fault.Public(fault.Invalid,
			fmt.Sprintf("The user has %d memories; at most %d can be merged. Delete some first.", total, maxMerged), nil)
	}
	merged, notes := mergedFrom(old)
	if merged.Memory, err = a.mergeNotes(ctx, r, in.Body.Model, notes); err != nil {
		return none, err
	}
	merged.MemoryID, merged.CreatedAt = a.NewID(), pgvalue.Time(a.Now())
	merged.UpdatedAt = merged.CreatedAt
	if a.Revoked != nil { // The model may have taken a minute.
		if err := a.Revoked(ctx, r.principal); err != nil {
			return none, err
		}
	}
	if in.Body.Apply == nil || *in.Body.Apply {
		r.audit.Object("memory", merged.MemoryID.String())
		if err := a.DB.MergeMemories(ctx, old, merged); err != nil {
			return none, err
		}
	}
	out := wire.MergedMemories{
		Memories: []wire.Memory{memoryOf(merged)}, MemoriesBefore: len(old), MemoriesAfter: 1,
		TokensBefore: estimateTokens(notes...), TokensAfter: estimateTokens(merged.Memory),
	}
	out.TokensSaved = max(0, out.TokensBefore-out.TokensAfter)
	out.ReductionPercentage = float64(out.TokensSaved) * 100 / float64(max(1, out.TokensBefore))
	return out, nil
}

// mergeNotes has the model merge notes, within the limits of the caller and the OS: a merge counts as a run. A caller
// without limits can begin store.MergesPerMinute.
func (a Runs) mergeNotes(ctx context.Context, r *request, model string, notes []string) (string, error) {
	spender, err := a.Isolation.spender(r)
	if err == nil {
		err = a.Notes.Knows(model)
	}
	if err != nil {
		return "", err
	}
	merge := store.Leg{RunID: a.NewID(), ID: a.NewID()}
	if err := a.DB.BeginMerge(ctx, merge, store.Budget{
		Spender: spender, Caller: r.principal.Limits, OS: a.Limits,
	}); err != nil {
		return "", err
	}
	merged, spent, err := a.Notes.Merge(ctx, model, notes)
	// What a client that has gone has used counts too.
	used := store.Usage{Total: spent.Tokens, MicroUSD: spent.MicroUSD}
	if settled := a.DB.Settle(context.WithoutCancel(ctx), merge, used); err == nil {
		err = settled
	}
	return merged, err
}

// mergedFrom returns a memory without a text, and the texts of the old memories. The
// memory has the topics of all of them, and the agent or team only if all of them have
// the same one.
func mergedFrom(old []store.Memory) (merged store.Memory, notes []string) {
	merged = store.Memory{Owner: old[0].Owner, Topics: []string{}, AgentID: old[0].AgentID, TeamID: old[0].TeamID}
	for _, m := range old {
		notes = append(notes, m.Memory)
		for _, topic := range m.Topics {
			if !slices.Contains(merged.Topics, topic) {
				merged.Topics = append(merged.Topics, topic)
			}
		}
		if text(m.AgentID) != text(merged.AgentID) {
			merged.AgentID = nil
		}
		if text(m.TeamID) != text(merged.TeamID) {
			merged.TeamID = nil
		}
	}
	return merged, notes
}

// estimateTokens estimates how many tokens the texts are: one for each four characters,
// the rule of thumb for English. Keyway links no tokenizer.
func estimateTokens(texts ...string) (n int) {
	for _, t := range texts {
		n += (utf8.RuneCountInString(t) + 3) / 4
	}
	return n
}
