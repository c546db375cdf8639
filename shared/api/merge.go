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

type mergeMemories struct {
	database
	Body struct {
		User  string `json:"user_id" required:"true" maxbytes:"1024" doc:"Whose memories, for who may see everybody's; else the caller's own."`
		Model string `json:"model" maxbytes:"1024" doc:"The model of a declared agent, as provider:id; the first agent's when absent."`
		Apply *bool  `json:"apply" doc:"false shows the result and changes nothing; true when absent."`
	} `body:"json"`
}

// maxMerged bounds how many memories a model is to read at once.
const maxMerged = 500

// merge lets a model make one memory of all of a user's. It stands with the runs,
// which alone have models.
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
	old, total, err := a.DB.Memories(ctx, viewer, store.MemoryQuery{Owner: owner, SortBy: "created_at", Ascending: true, Limit: maxMerged, Page: 1})
	switch {
	case err != nil:
		return none, err
	case total == 0:
		return none, fault.Public(fault.NotFound, "No memories found for user "+owner, nil)
	case total > maxMerged:
		return none, fault.Public(fault.Invalid, fmt.Sprintf("the user has %d memories; at most %d can be put together", total, maxMerged), nil)
	}
	merged, notes := oneOf(old)
	if merged.Memory, err = a.Runner.Merge(ctx, in.Body.Model, notes); err != nil {
		return none, err
	}
	merged.MemoryID, merged.CreatedAt = a.NewID(), pgvalue.Time(a.Now())
	merged.UpdatedAt = merged.CreatedAt
	if in.Body.Apply == nil || *in.Body.Apply {
		if err := a.DB.MergeMemories(ctx, old, merged); err != nil {
			return none, err
		}
	}
	out := wire.MergedMemories{
		Memories: []wire.Memory{memoryOf(merged)}, MemoriesBefore: len(old), MemoriesAfter: 1,
		TokensBefore: tokens(notes...), TokensAfter: tokens(merged.Memory),
	}
	out.TokensSaved = max(0, out.TokensBefore-out.TokensAfter)
	out.ReductionPercentage = float64(out.TokensSaved) * 100 / float64(max(1, out.TokensBefore))
	return out, nil
}

// oneOf is what the memories have in common, with all of their topics, and their
// texts.
func oneOf(old []store.Memory) (merged store.Memory, notes []string) {
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

// tokens is about how many a model counts: four characters each.
func tokens(texts ...string) (n int) {
	for _, t := range texts {
		n += (utf8.RuneCountInString(t) + 3) / 4
	}
	return n
}
