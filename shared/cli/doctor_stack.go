package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stackAnswer is what "aws cloudformation describe-stacks" prints.
type stackAnswer struct {
	Stacks []struct {
		StackStatus string
		Outputs     []struct{ OutputKey, OutputValue string }
		Parameters  []struct{ ParameterKey, ParameterValue string }
	}
}

// logAnswer is what "aws logs filter-log-events" prints.
type logAnswer struct {
	Events []logEvent `json:"events"`
}

type logEvent struct {
	Timestamp int64  `json:"timestamp"` // in milliseconds
	Message   string `json:"message"`
	group     string
}

// stack reports the state, the outputs and the last errors of a deployed stack.
func (x *examination) stack(ctx context.Context, f *findings) {
	if _, err := exec.LookPath("aws"); err != nil {
		f.warning("aws", "install the AWS command line, or look at the stack in AWS's console",
			"the command aws is not installed here, so the stack was not checked")
		return
	}
	var answer stackAnswer
	const remedy = "check the name of the stack, the region (AWS_REGION) and the credentials"
	err := aws(ctx, &answer, "cloudformation", "describe-stacks", "--stack-name", x.Stack)
	if err == nil && len(answer.Stacks) == 0 {
		err = errors.New("there is no such stack")
	}
	if err != nil {
		f.failed(x.Stack, err, remedy)
		return
	}
	s := answer.Stacks[0]
	switch {
	case strings.Contains(s.StackStatus, "FAILED") || strings.Contains(s.StackStatus, "ROLLBACK"):
		f.fault("status", "see why: aws cloudformation describe-stack-events --stack-name "+x.Stack, "%s", s.StackStatus)
	case strings.HasSuffix(s.StackStatus, "_IN_PROGRESS"):
		f.warning("status", "wait until the deployment has ended", "%s", s.StackStatus)
	default:
		f.ok("status", "%s", s.StackStatus)
	}
	for _, p := range s.Parameters {
		if p.ParameterKey == "PublicUrl" {
			x.publicURL(p.ParameterValue, f)
		}
	}
	var groups []string
	for _, o := range s.Outputs {
		f.ok(o.OutputKey, "%s", o.OutputValue)
		if o.OutputKey == "LogGroups" {
			groups = strings.Split(o.OutputValue, ",")
		}
	}
	x.lastErrors(ctx, groups, f)
}

// publicURL compares public_url with the stack's parameter PublicUrl, which API Gateway shows to clients of the door
// for MCP. A public_url that is a variable has the parameter's value in the functions.
func (x *examination) publicURL(parameter string, f *findings) {
	own := x.cfg.PublicURL
	switch {
	case own == "" || strings.Contains(x.cfg.AsWritten(own), "${") || own == parameter:
	case parameter == "":
		f.warning("PublicUrl", "deploy with the parameter PublicUrl="+own,
			"the stack's parameter PublicUrl is empty, so a 401 does not name where clients of /mcp get a token")
	default:
		f.fault("PublicUrl", "make both the same address, or write public_url: ${PUBLIC_URL}",
			"public_url is %s, and the stack's parameter PublicUrl is %s: a client with a token for one is refused at the other",
			own, parameter)
	}
}

// lastErrors reports the last errors of one hour in the log groups.
func (x *examination) lastErrors(ctx context.Context, groups []string, f *findings) {
	const most = 5
	parts := make([][]logEvent, len(groups))
	since := strconv.FormatInt(x.now().Add(-time.Hour).UnixMilli(), 10)
	each(len(groups), f, func(i int, f *findings) {
		var answer logAnswer
		// Each of the terms marks an error. The events come in the order of their time.
		err := aws(ctx, &answer, "logs", "filter-log-events", "--log-group-name", groups[i], "--start-time", since,
			"--filter-pattern", `?ERROR ?FATAL ?"Task timed out"`, "--max-items", "500")
		if err != nil {
			f.failed(groups[i], err, "allow logs:FilterLogEvents, or read the logs in AWS's console")
		}
		for _, e := range answer.Events {
			e.group = groups[i]
			parts[i] = append(parts[i], e)
		}
	})
	events := slices.Concat(parts...)
	slices.SortStableFunc(events, func(a, b logEvent) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	for _, e := range events[max(0, len(events)-most):] {
		f.warning("errors", "read the lines around it: aws logs tail "+e.group, "%s %s: %s",
			time.UnixMilli(e.Timestamp).UTC().Format(time.RFC3339), e.group, e.Message)
	}
	if len(events) == 0 && len(groups) > 0 {
		f.ok("errors", "none in the last hour")
	}
}

// maxAnswer bounds what is read of an answer of aws.
const maxAnswer = 8 << 20

// aws executes AWS's command and reads its JSON.
func aws(ctx context.Context, answer any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "aws", append(args, "--output", "json")...) // #nosec G204 -- the operator's stack
	cmd.Env = append(os.Environ(), "AWS_PAGER=")
	cmd.WaitDelay = time.Second
	out, complaint := bounded{max: maxAnswer}, bounded{max: 4096}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("aws %s did not answer within %s", args[1], checkTime)
	case err != nil:
		return fmt.Errorf("aws %s: %s", args[1], cmp.Or(strings.TrimSpace(complaint.String()), err.Error()))
	case json.Unmarshal(out.Bytes(), answer) != nil:
		return fmt.Errorf("aws %s printed something else than JSON", args[1])
	}
	return nil
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	max int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	_, _ = b.Buffer.Write(p[:min(len(p), b.max-b.Len())])
	return len(p), nil
}
