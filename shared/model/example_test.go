package model_test

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
)

// shout is a model that repeats the user's last message in capital letters.
type shout struct{}

// Describe returns the names under which clients see the model.
func (shout) Describe() model.Description {
	return model.Description{ID: "shout-1", Name: "Shout", Provider: "Example", Family: "Example"}
}

// Stream yields one part for each word and then the part with the End.
func (shout) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		last := r.Messages[len(r.Messages)-1]
		words := strings.Fields(strings.ToUpper(last.Content))
		for _, word := range words {
			if ctx.Err() != nil { // the run was cancelled, or its time is over
				yield(model.Part{}, context.Cause(ctx))
				return
			}
			if !yield(model.Part{Text: word + " "}, nil) { // the consumer stopped reading
				return
			}
		}
		n := len(words)
		yield(model.Part{End: &model.End{
			FinishReason: "stop",
			Usage:        model.Usage{Input: n, Output: n, Total: 2 * n},
		}}, nil)
	}
}

// A model of your own implements Describe and Stream. A program that embeds Keyway
// passes it as the Model of an agent; see examples/own-tools.
func ExampleModel() {
	var m model.Model = shout{}
	request := model.Request{Messages: []model.Message{{Role: model.User, Content: "good morning"}}}
	for part, err := range m.Stream(context.Background(), request) {
		switch {
		case err != nil:
			fmt.Println("error:", err)
		case part.End != nil:
			fmt.Println("end:", part.End.FinishReason, part.End.Usage.Total, "tokens")
		default:
			fmt.Printf("text: %q\n", part.Text)
		}
	}
	// Output:
	// text: "GOOD "
	// text: "MORNING "
	// end: stop 4 tokens
}
