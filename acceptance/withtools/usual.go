package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"

	"github.com/keyway-agents/keyway/shared/tool"
)

// usualTools are tools of each kind: called at once (look_up), confirmed by a person
// (delete_account), with an argument from a person (book), and executed outside of Keyway
// (sign). gate keeps a run waiting.
func usualTools() []tool.Tool {
	lookUp := tool.Func("look_up", "Looks something up.", func(ctx context.Context, in struct {
		What string `json:"what"`
	}) (string, error) {
		return in.What + ", for " + tool.CallerFrom(ctx).UserID, nil
	})
	deleteAccount := tool.Func("delete_account", "Deletes an account.", func(_ context.Context, in struct {
		ID int `json:"id"`
	}) (string, error) {
		return fmt.Sprintf("account %d is gone", in.ID), nil
	})
	book := tool.Func("book", "Books seats.", func(_ context.Context, in struct {
		Film  string `json:"film"`
		Seats int    `json:"seats"`
	}) (string, error) {
		return fmt.Sprintf("%d seats for %s", in.Seats, in.Film), nil
	})
	sign := tool.Func("sign", "Signs a text.", func(context.Context, struct {
		Text string `json:"text"`
	}) (string, error) {
		return "", errors.New("a person does this")
	})
	deleteAccount.Confirm, book.UserInput, sign.External = true, []string{"seats"}, true
	return append([]tool.Tool{lookUp, deleteAccount, book, sign, gate(), transfer()}, payTools()...)
}

// transfer answers, after a confirmation, with how often it was called, the account and the call's ID.
func transfer() tool.Tool {
	var called atomic.Int32
	t := tool.Func("transfer", "Transfers money.", func(ctx context.Context, in struct {
		Account string `json:"account"`
	}) (string, error) {
		return fmt.Sprintf("transfer %d to %s as %s", called.Add(1), in.Account, tool.CallerFrom(ctx).CallID), nil
	})
	t.Confirm = true
	return t
}

// payTools answer with their arguments as they are, also if those are invalid: echo at once,
// pay after a confirmation, ask with an argument from a person.
func payTools() []tool.Tool {
	echo := tool.Tool{
		Name: "echo", Description: "Pays.",
		Parameters: json.RawMessage(`{"type":"object","properties":{"for":{"type":"string"}}}`),
		Call: func(_ context.Context, arguments json.RawMessage) (string, error) {
			return "paid " + string(arguments), nil
		},
	}
	pay, ask := echo, echo
	pay.Name, pay.Confirm = "pay", true
	ask.Name, ask.UserInput = "ask", []string{"for"}
	return []tool.Tool{echo, pay, ask}
}

// gate is a tool that waits until the test's server at $GATE_URL answers the request for
// its key.
func gate() tool.Tool {
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // an idle connection would count as a leak
	return tool.Func("gate", "Waits.", func(ctx context.Context, in struct {
		Key string `json:"key"`
	}) (string, error) {
		address := os.Getenv("GATE_URL") + "?" + url.Values{"key": {in.Key}}.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil) // #nosec G704 -- the test names the server
		if err != nil {
			return "", err
		}
		resp, err := web.Do(req) // #nosec G704 -- the test names the server
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		return "open", nil
	})
}
