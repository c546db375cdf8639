//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// pass is one server with abuse beside honest callers, and in the long form another one with well-behaved callers.
type pass struct {
	*lab
	name  string // of the keyway.yaml in testdata
	scale int
	// compared means that the honest callers' times are compared.
	compared bool
	// only is the name of the one kind to do; empty: all.
	only string
}

// turnTime is how long a kind of abuse may take when it is its turn.
const turnTime = 15 * time.Second

// run executes the pass.
func (p pass) run(ctx context.Context) (e evidence, err error) {
	e.pass = p.name
	began := time.Now()
	requests := 0
	hostile, err := p.beside(ctx, "hostile", func(ctx context.Context, s *server) error {
		requests, err = p.abuse(ctx, s, &e)
		return err
	}, &e)
	if err != nil {
		return e, err
	}
	e.completed, e.failed, e.repeated = len(hostile.took), hostile.failed, hostile.repeated
	e.hostile = percentile99(hostile.took)
	if took := time.Since(began); p.compared && e.crash == "" {
		p.say("%s: the same time with %d well-behaved requests", p.name, requests)
		var other evidence
		calm, err := p.beside(ctx, "calm", func(ctx context.Context, s *server) error {
			return behave(ctx, s.url, requests, took)
		}, &other)
		if err != nil {
			return e, err
		}
		e.calm = percentile99(calm.took)
	}
	return e, nil
}

// beside starts a server and does something with it while honest callers use it.
func (p pass) beside(
	ctx context.Context, name string, do func(context.Context, *server) error, e *evidence,
) (*honest, error) {
	database, err := p.pg.Database(ctx, p.name+"_"+name)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(p.root, "acceptance/hostile/testdata", p.name+".yaml")
	s, err := startServer(ctx, p.program, config, filepath.Join(p.dir, p.name+"-"+name), database, p.model)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	h, failed := &honest{}, make(chan error, 1)
	go func() { failed <- h.call(ctx, s.url) }()
	go s.watchPeak(ctx)
	before, err := s.disk(ctx)
	if err == nil {
		err = do(ctx, s)
	}
	end()
	err = errors.Join(err, <-failed)
	s.takePeak()
	after, err2 := s.disk(context.WithoutCancel(ctx))
	e.peak, e.growth = s.peak, after-before
	if end := s.stop(); end != nil {
		e.crash = fmt.Sprintf("%s; its log is %s", end, s.logFile())
	}
	return h, errors.Join(err, err2)
}

// abuse does all kinds of abuse and returns the number of requests.
func (p pass) abuse(ctx context.Context, s *server, e *evidence) (requests int, err error) {
	token, err := mint("mallory", nil)
	if err != nil {
		return 0, err
	}
	lasting, end := context.WithCancel(ctx)
	defer end()
	var all sync.WaitGroup
	var mu sync.Mutex
	note := func(d deed) {
		mu.Lock()
		defer mu.Unlock()
		e.deeds = append(e.deeds, d)
		e.sent += d.sent
		for _, n := range d.statuses {
			requests += n
		}
		if !d.lasting {
			p.say("%s: %s: %v, sent %s, received %s, disk %s, memory %s, %.1f s", p.name, d.name, d.statuses,
				megabytes(d.sent), megabytes(d.received), megabytes(d.growth), megabytes(d.peak), d.took.Seconds())
		}
	}
	turn := func(ctx context.Context, k abuse) deed {
		began, a := time.Now(), newAttacker(s.url, token, p.scale)
		defer a.client.CloseIdleConnections()
		k.do(ctx, a)
		return deed{
			name: k.name, allowed: k.allowed, lasting: k.lasting, limited: k.limited && p.name == "limits",
			statuses: a.statuses, sent: a.sent.Load(), received: a.received.Load(), took: time.Since(began),
		}
	}
	for _, k := range kinds {
		if k.lasting && (p.only == "" || p.only == k.name) {
			all.Go(func() { note(turn(lasting, k)) })
		}
	}
	for _, k := range kinds {
		if k.lasting || p.only != "" && p.only != k.name {
			continue
		}
		s.takePeak()
		before, err := s.disk(ctx)
		if err != nil {
			return requests, err
		}
		mine, stop := context.WithTimeout(ctx, turnTime*time.Duration(p.scale))
		d := turn(mine, k)
		stop()
		after, err := s.disk(ctx)
		if err != nil {
			return requests, err
		}
		d.peak, d.growth = s.takePeak(), after-before
		note(d)
	}
	if p.scale == 1 {
		end() // the short form doesn't wait until the last connection is closed
	}
	all.Wait()
	return requests, nil
}

// behave sends that many requests as the API is meant to be used, evenly in that time.
func behave(ctx context.Context, base string, requests int, within time.Duration) error {
	token, err := mint("neighbour", nil)
	if err != nil {
		return err
	}
	const callers = 8
	var next atomic.Int64
	began := time.Now()
	a := newAttacker(base, token, 1)
	together(callers, func(int) {
		for ctx.Err() == nil {
			n := int(next.Add(1))
			if n > requests {
				return
			}
			due := time.Duration(float64(within) * float64(n) / float64(requests))
			_ = harness.Wait(ctx, due-time.Since(began))
			switch {
			case n%20 == 0:
				a.run(ctx, "message", "hello")
			case n%2 == 0:
				a.send(ctx, "GET", "/sessions?type=agent&limit=5", "", nil)
			default:
				a.send(ctx, "GET", "/agents", "", nil)
			}
		}
	})
	return nil
}
