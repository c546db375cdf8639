//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

// The functions of this file let the package compile on other systems than Linux. There
// main ends the program before it calls any of them.

// ownGroup does nothing.
func ownGroup(*exec.Cmd) {}

// endGroup kills the process.
func endGroup(c *exec.Cmd, _ bool) { _ = c.Process.Kill() }

// groupUsage is not supported: there is no /proc.
func groupUsage(int) (usage, error) { return usage{}, errors.ErrUnsupported }

// quota bounds nothing.
type quota struct{}

// newQuota is not supported: there are no cgroups.
func newQuota(float64) (*quota, error) { return nil, errors.ErrUnsupported }

// remove does nothing.
func (q *quota) remove() error { return nil }

// start starts the command without a bound.
func (q *quota) start(cmd *exec.Cmd) error { return cmd.Start() }
