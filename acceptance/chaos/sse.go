//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// frame is one event of a run as a client received it.
type frame struct {
	// Index is the event's event_index. Events that describe the stream have none: -1.
	Index int
	// Event is its name, and Data its JSON.
	Event, Data string
}

// readFrames calls receive for each event of a stream, until the stream ends or receive returns false. A stream that
// breaks off within an event loses that event.
func readFrames(body io.Reader, receive func(frame) bool) error {
	lines := bufio.NewReader(body)
	var f frame
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, "event: "):
			f.Event = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			f.Data = line[len("data: "):]
		case line == "" && f.Data != "":
			if f.Index, err = indexOf(f.Data); err != nil {
				return fmt.Errorf("%s %s: %w", f.Event, f.Data, err)
			}
			if !receive(f) {
				return nil
			}
			f = frame{}
		}
	}
}

// indexOf returns the event_index of an event, or -1.
func indexOf(data string) (int, error) {
	var about struct {
		Index *int `json:"event_index"`
	}
	if err := json.Unmarshal([]byte(data), &about); err != nil {
		return 0, err
	}
	if about.Index == nil {
		return -1, nil
	}
	return *about.Index, nil
}

// view is what a client has of a run's events.
type view struct {
	// Frames are the events by index.
	Frames map[int]frame
	// Last is the index of the last event, or -1.
	Last int
	// FromStart means that the view has all events from the first one on.
	FromStart bool
	// Wrong describes an order of events that no stream has.
	Wrong string
}

func newView() view { return view{Frames: map[int]frame{}, Last: -1, FromStart: true} }

// add adds an event. fresh means that the stream may begin anew: it has just begun, or announced that events follow
// from the first one.
func (v *view) add(f frame, fresh bool) {
	if f.Index <= v.Last {
		if !fresh {
			v.Wrong = fmt.Sprintf("event %d (%s) follows event %d", f.Index, f.Event, v.Last)
		}
		wrong := v.Wrong
		*v = newView()
		v.Wrong = wrong
	}
	v.Frames[f.Index], v.Last = f, f.Index
}

// end is the name of the event with which the run ended, or empty.
func (v *view) end() string {
	switch f := v.Frames[v.Last]; f.Event {
	case "RunCompleted", "RunError", "RunCancelled":
		return f.Event
	}
	return ""
}
