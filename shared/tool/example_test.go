package tool_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyway-agents/keyway/shared/tool"
)

// article is the parameters of the tool. Want is optional, because of omitempty.
type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
	Want int    `json:"want,omitempty" jsonschema:"how many are wanted; 1 by default"`
}

// inStock is the work of the tool.
func inStock(ctx context.Context, a article) (string, error) {
	if a.Name != "tea" {
		return "", fmt.Errorf("there is no article %q", a.Name)
	}
	user := tool.CallerFrom(ctx).UserID // from the verified token, never from the model
	return fmt.Sprintf("12 in stock, enough for %s: %t", user, a.Want <= 12), nil
}

// A tool of your own is a Go function with a struct of parameters. The run loop makes
// the call and sets the caller; here the example does both.
func ExampleFunc() {
	stock := tool.Func("in_stock", "Returns how many of an article the shop has.", inStock)

	ctx := tool.WithCaller(context.Background(), tool.Caller{UserID: "ann"})
	for _, arguments := range []string{
		`{"name": "tea", "want": 3}`,
		`{"name": "rum"}`,
		`{"want": 3}`,
	} {
		text, err := stock.Call(ctx, json.RawMessage(arguments))
		fmt.Println(text, err)
	}
	// Output:
	// 12 in stock, enough for ann: true <nil>
	//  there is no article "rum"
	//  arguments of in_stock: validating root: required: missing properties: ["name"]
}

// The result of JSON isn't a text. The model reads it as JSON.
func ExampleJSON() {
	type city struct {
		Name string `json:"name"`
	}
	type weather struct {
		Sky     string `json:"sky"`
		Celsius int    `json:"celsius"`
	}
	forecast := tool.JSON("forecast", "Returns the weather in a city.",
		func(_ context.Context, c city) (weather, error) { return weather{Sky: "clear", Celsius: 21}, nil })

	text, err := forecast.Call(context.Background(), json.RawMessage(`{"name": "Berlin"}`))
	fmt.Println(text, err)
	// Output: {"sky":"clear","celsius":21} <nil>
}

// A person must consent before this tool is called. The run is paused until then.
func ExampleTool_confirm() {
	type payment struct {
		To     string `json:"to"`
		Amount int    `json:"amount"`
	}
	transfer := tool.Func("transfer", "Transfers money.",
		func(_ context.Context, p payment) (string, error) { return "done", nil })
	transfer.Confirm = true

	fmt.Println(transfer.Name, transfer.Confirm)
	// Output: transfer true
}
