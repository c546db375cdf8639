package demo

import "time"

// NewWithDelay is New with another pause before each word; 0 means no pause.
func NewWithDelay(id string, delay time.Duration) *Model {
	m := New(id)
	m.delay = delay
	return m
}
