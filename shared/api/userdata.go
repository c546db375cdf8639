package api

import (
	"context"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// UserData answers the routes about all data of one user. Only administrators are allowed to use them. The function for
// runs serves them, because only its answers can be longer than 6 MB on Lambda, and one run can be.
type UserData struct {
	DB *store.DB
}

func (u UserData) endpoints() []Endpoint {
	return []Endpoint{lines(route.ExportUserData, u.export), answer(route.EraseUserData, u.erase)}
}

// exportUser is the input of GET /user-data.
type exportUser struct {
	User   string `query:"user_id" required:"true" minlen:"1" bound:"short_text" doc:"Whose data."`
	Cursor string `query:"cursor" bound:"short_text" doc:"The cursor in the last line of the previous page."`
}

// export answers a page of all that the database has of a user.
func (u UserData) export(ctx context.Context, r *request, in exportUser) ([]any, error) {
	from, ok := store.ParseUserPlace(in.Cursor)
	if !ok {
		return nil, fault.Fields(fault.Field{
			Type: "value_error", Loc: []any{"query", "cursor"},
			Msg: "Value error, send the cursor of the previous page, or none for the first page", Input: in.Cursor,
		})
	}
	r.audit.Owner(in.User)
	items, next, err := u.DB.UserPage(ctx, in.User, from)
	if err != nil {
		return nil, err
	}
	lines := make([]any, 0, len(items)+1)
	for _, item := range items {
		lines = append(lines, wire.UserLine{Kind: item.Kind, Data: item.Data})
	}
	last := wire.UserLine{Kind: wire.UserLineEnd}
	if next != (store.UserPlace{}) {
		last = wire.UserLine{Kind: wire.UserLineNext, Cursor: next.String()}
	}
	return append(lines, last), nil
}

// eraseUser is the input of DELETE /user-data.
type eraseUser struct {
	User string `query:"user_id" required:"true" minlen:"1" bound:"short_text" doc:"Whose data."`
}

// eraseBatches bounds what one request deletes: 50 sessions and 1,000 memories with each batch.
const eraseBatches = 20

// erase deletes what the database has of a user, or a part of it.
func (u UserData) erase(ctx context.Context, r *request, in eraseUser) (out wire.ErasedUser, err error) {
	r.audit.Owner(in.User)
	did, more, err := u.DB.EraseUser(ctx, in.User, eraseBatches)
	return wire.ErasedUser{Sessions: did.Sessions, Runs: did.Runs, Memories: did.Memories, More: more}, err
}
