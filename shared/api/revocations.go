package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Revocations answers the routes by which an administrator revokes tokens. They do what the
// command keyway revoke does.
type Revocations struct {
	// DB stores the revocations. Required.
	DB *store.DB
	// List is the copy by which this process checks tokens. A change is in force here at
	// once. Required.
	List *revoke.List
	// Issuers are those that a revocation can name.
	Issuers revoke.Issuers
}

// endpoints implements Resource.
func (a Revocations) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListRevocations, a.list),
		answerWith(route.Revoke, http.StatusCreated, a.revoke),
		done(route.UndoRevocation, a.undo),
	}
}

// listRevocations is the input of GET /revocations.
type listRevocations struct {
	Limit int `query:"limit" default:"100" min:"1" max:"1000" doc:"Revocations on a page, at most 1,000."`
	Page  int `query:"page" default:"1" min:"1" doc:"The number of the page, from 1: the oldest revocations are on the first one."`
}

// list answers one page of the revocations.
func (a Revocations) list(
	ctx context.Context, _ *request, in listRevocations,
) (page wire.Page[wire.Revocation], err error) {
	found, total, err := a.DB.RevocationPage(ctx, in.Limit, in.Page)
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.Revocation, len(found))
	for i, row := range found {
		page.Data[i] = RevocationOf(row)
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

// selected returns the revocation that the members jti, sub and issuer of a body select.
// choose decides about the issuer. A wrong member is fault.Unprocessable.
func selected(id, subject string, issuer *string, choose func(*string) (string, error)) (store.Revocation, error) {
	r := store.Revocation{TokenID: id, Subject: subject}
	if (id == "") == (subject == "") {
		return r, wrongMember("jti", "one of jti and sub is required, and not both", nil)
	}
	var err error
	if r.Issuer, err = choose(issuer); err != nil {
		return r, wrongMember("issuer", err.Error(), nil)
	}
	return r, nil
}

// audited notes in the audit log whose token or which token a revocation is about.
func audited(q *request, r store.Revocation) {
	if r.TokenID != "" {
		q.audit.Object("token", r.TokenID)
		return
	}
	q.audit.Subject(r.Issuer, r.Subject)
}

// wrongMember is the error for a member of the body, in FastAPI's form.
func wrongMember(name, problem string, value any) error {
	return fault.Fields(fault.Field{
		Type: "value_error", Loc: []any{"body", name}, Msg: "Value error, " + problem, Input: value,
	})
}

// revokeTokens is the input of POST /revocations.
type revokeTokens struct {
	Body struct {
		TokenID string  `json:"jti" bound:"token_id" doc:"The claim jti of the token to revoke. One of jti and sub is required."`
		Subject string  `json:"sub" bound:"short_text" doc:"The subject of the tokens to revoke: the claim that auth.claims.subject names, by default sub."`
		Issuer  *string `json:"issuer" bound:"short_text" doc:"The claim iss of the tokens. Required if tokens of several issuers are accepted."`
		Before  string  `json:"before" bound:"short_text" doc:"With sub: a time as in 2026-11-29T12:00:00Z. Tokens that were issued before are revoked, and those without iat. Defaults to now."`
		Note    string  `json:"note" bound:"short_text" doc:"Why, for people."`
	} `body:"json" closed:"true"` // With a typing error in "before", all tokens would be revoked.
}

// revoke stores a revocation. One that exists keeps the later time.
func (a Revocations) revoke(ctx context.Context, q *request, in revokeTokens) (wire.Revocation, error) {
	choose := func(named *string) (string, error) { return a.Issuers.Choose(named, a.DB.Owners()) }
	r, err := selected(in.Body.TokenID, in.Body.Subject, in.Body.Issuer, choose)
	if err != nil {
		return wire.Revocation{}, err
	}
	audited(q, r)
	r.Note = in.Body.Note
	if in.Body.Before != "" {
		before, err := time.Parse(time.RFC3339, in.Body.Before)
		if err != nil {
			return wire.Revocation{}, wrongMember("before", "a time looks like 2026-11-29T12:00:00Z", in.Body.Before)
		}
		r.Before = &before
	}
	if r.MadeAt, err = a.DB.Now(ctx); err != nil {
		return wire.Revocation{}, err
	}
	if err := r.Complete(); err != nil {
		return wire.Revocation{}, wrongMember("before", err.Error(), in.Body.Before)
	}
	stored, err := a.DB.Revoke(ctx, r, store.MaxRevocations-store.ReservedRevocations)
	a.List.Forget()
	return RevocationOf(stored), err
}

// undoRevocation is the input of DELETE /revocations.
type undoRevocation struct {
	Body struct {
		TokenID string  `json:"jti" bound:"token_id" doc:"The claim jti of the revocation. One of jti and sub is required."`
		Subject string  `json:"sub" bound:"short_text" doc:"The subject of the revocation."`
		Issuer  *string `json:"issuer" bound:"short_text" doc:"The issuer of the revocation. Required if tokens of several issuers are accepted."`
	} `body:"json" closed:"true"`
}

// undo removes a revocation. Any issuer can be named, also one that keyway.yaml no longer
// has.
func (a Revocations) undo(ctx context.Context, q *request, in undoRevocation) error {
	anyIssuer := func(named *string) (string, error) {
		if named != nil {
			return *named, nil
		}
		return a.Issuers.Choose(nil, nil)
	}
	r, err := selected(in.Body.TokenID, in.Body.Subject, in.Body.Issuer, anyIssuer)
	if err != nil {
		return err
	}
	audited(q, r)
	found, err := a.DB.UndoRevocation(ctx, r, a.Issuers.Spellings(r.Issuer, a.DB.Owners()))
	a.List.Forget()
	if err == nil && !found {
		err = fault.Public(fault.NotFound, "There is no such revocation", nil)
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// RevocationOf converts a row to what the route and the command show.
func RevocationOf(row store.Revocation) wire.Revocation {
	r := wire.Revocation{
		Issuer: row.Issuer, TokenID: row.TokenID, Subject: row.Subject, MadeAt: wire.MicroTime{Time: row.MadeAt},
		Note: row.Note,
	}
	if row.Before != nil {
		r.Before = &wire.MicroTime{Time: *row.Before}
	}
	return r
}
