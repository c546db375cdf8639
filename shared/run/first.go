package run

import (
	"context"
	"iter"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/trace"
)

// toolbox holds the tools that the model may call in one run.
type toolbox struct {
	byName map[string]tool.Tool
	specs  []model.ToolSpec
}

// firstCall is the first model call of a streamed run, which is sent while PostgreSQL commits the start of the run.
// Until the commit is known, nobody sees anything of the run: a goroutine asks the model, and its answer is read
// afterwards. If the start fails, the call is cancelled. See docs/adr/0036.
type firstCall struct {
	cancel context.CancelCauseFunc
	// messages are the conversation, and err is why there is none.
	messages []model.Message
	err      error
	// listed is closed when tools is set. It stays nil if the tools could not be listed or if the run may not continue.
	// Then nothing is sent, and the leg finds out the reason itself.
	listed chan struct{}
	tools  *toolbox
	// done is closed when the goroutine has ended. The fields below are set then.
	done chan struct{}
	call
	// panicked is what the model has panicked with.
	panicked any
}

// call is a request to the model that was sent.
type call struct {
	parts iter.Seq2[model.Part, error]
	span  trace.Span
	sent  time.Time
}

// follow cancels the call when ctx ends, with the same cause. stop cancels it too.
func (f *firstCall) follow(ctx context.Context) (stop func()) {
	if f == nil {
		return func() {}
	}
	unfollow := context.AfterFunc(ctx, func() { f.cancel(context.Cause(ctx)) })
	return func() {
		unfollow()
		f.cancel(nil)
	}
}

// answered returns the call when its answer begins, and repeats a panic of the model. The call is empty if nothing was
// sent.
func (f *firstCall) answered() call {
	<-f.done
	if f.panicked != nil {
		panic(f.panicked)
	}
	return f.call
}
