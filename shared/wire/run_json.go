package wire

import (
	"strconv"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// AppendRun appends a run as Marshal encodes it. Its members that are JSON must be valid. encoding/json checks each of
// them byte by byte, which takes longer than everything else of a run's answer; FuzzRun compares the bytes.
func AppendRun(dst []byte, r *Run) []byte {
	dst = strictjson.AppendText(append(dst, `{"run_id":`...), r.RunID)
	dst = strictjson.AppendText(append(dst, `,"agent_id":`...), r.AgentID)
	dst = strictjson.AppendText(append(dst, `,"agent_name":`...), r.AgentName)
	dst = strictjson.AppendText(append(dst, `,"session_id":`...), r.SessionID)
	dst = appendUnlessEmpty(dst, `,"user_id":`, r.UserID)
	if r.Content != nil {
		dst = strictjson.AppendText(append(dst, `,"content":`...), *r.Content)
	}
	dst = strictjson.AppendText(append(dst, `,"content_type":`...), r.ContentType)
	if r.ReasoningContent != nil {
		dst = strictjson.AppendText(append(dst, `,"reasoning_content":`...), *r.ReasoningContent)
	}
	dst = appendDocument(dst, `,"model_provider_data":`, r.ModelProviderData)
	dst = strictjson.AppendText(append(dst, `,"model":`...), r.Model)
	dst = strictjson.AppendText(append(dst, `,"model_provider":`...), r.ModelProvider)
	dst = appendDocument(dst, `,"session_state":`, r.SessionState)
	dst = strconv.AppendInt(append(dst, `,"created_at":`...), r.CreatedAt, 10)
	dst = strictjson.AppendText(append(dst, `,"status":`...), r.Status)
	dst = appendUnlessEmpty(dst, `,"cancellation_stage":`, r.CancellationStage)
	if r.Metrics == nil {
		dst = append(dst, `,"metrics":null`...)
	}
	dst = appendDocument(dst, `,"metrics":`, r.Metrics)
	dst = appendDocument(dst, `,"events":`, r.Events)
	dst = appendDocument(dst, `,"messages":`, r.Messages)
	dst = appendDocument(dst, `,"metadata":`, r.Metadata)
	dst = appendDocument(dst, `,"tools":`, r.Tools)
	dst = appendDocument(dst, `,"requirements":`, r.Requirements)
	dst = strictjson.AppendText(append(dst, `,"input":{"input_content":`...), r.Input.InputContent)
	return append(appendDocument(dst, `,"files":`, r.Input.Files), "}}"...)
}
