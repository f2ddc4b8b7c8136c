package manifests

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// Editors and git write a file in several steps: a change is complete when there was no event for
	// this time.
	quiet = 200 * time.Millisecond
	// Failures are retried after this delay, which doubles each time up to Rescan.
	firstRetry = time.Second
)

// Run applies the directory, and again whenever it changes, until the context ends. It returns an
// error only if it cannot start.
func (a *Applier) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", a.o.Dir, err)
	}
	defer watcher.Close()
	retry := firstRetry
	for {
		// Watch before reading, so that no change in between is missed. The watch on the parent directory
		// reports when the directory is replaced or created.
		_ = watcher.Add(filepath.Dir(filepath.Clean(a.o.Dir)))
		_ = watcher.Add(a.o.Dir)
		for _, dir := range a.dirs {
			_ = watcher.Add(dir)
		}
		known := len(a.dirs)
		next := a.o.Rescan
		if err := a.Sync(ctx); err != nil {
			next = min(retry, a.o.Rescan)
			retry *= 2
		} else {
			retry = firstRetry
		}
		if len(a.dirs) > known {
			// New directories may contain files from before they were watched.
			next = quiet
		}
		if changed := a.wait(ctx, watcher, next); changed {
			retry = firstRetry
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// wait returns true after a change, and false when the time is over or the context has ended.
func (a *Applier) wait(ctx context.Context, watcher *fsnotify.Watcher, limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	var settled <-chan time.Time
	var timer *time.Timer
	for {
		select {
		case <-ctx.Done():
			return false
		case <-deadline.C:
			return settled != nil
		case <-watcher.Errors:
			return false // it lost events: read everything
		case event, ok := <-watcher.Events:
			if !ok {
				return false
			}
			if event.Op == fsnotify.Chmod || !strings.HasPrefix(event.Name, filepath.Clean(a.o.Dir)) {
				continue // the event is about another entry of the parent directory
			}
			if timer == nil {
				timer = time.NewTimer(quiet)
				defer timer.Stop()
			} else {
				timer.Reset(quiet)
			}
			settled = timer.C
		case <-settled:
			return true
		}
	}
}
