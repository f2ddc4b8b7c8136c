package earlyissuance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// histories are those of a shard, by key.
type histories map[string]History

const (
	// maxText is the longest text of a shard that is read.
	maxText = 1 << 20
	// maxHistories is how many histories of a shard are written at most. The oldest are left out.
	maxHistories = 3500
	// maxCounted is the largest count that is read. More makes no difference.
	maxCounted = 64
)

// encode drops histories that no longer count, and returns the rest as text, with whole seconds.
func (all histories) encode(now time.Time) ([]byte, error) {
	for k, h := range all {
		if h.At(now).Counted == 0 {
			delete(all, k)
		}
	}
	if len(all) > maxHistories {
		oldest := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
			return cmp.Or(all[a].Last.Compare(all[b].Last),
				cmp.Compare(a, b))
		})
		for _, k := range oldest[:len(all)-maxHistories] {
			delete(all, k)
		}
	}
	text := make(histories, len(all))
	for k, h := range all {
		h.Counted = min(h.Counted, maxCounted)
		for _, t := range h.times() {
			*t = t.UTC().Truncate(time.Second)
		}
		text[k] = h
	}
	return json.Marshal(text)
}

// decode reads what encode has written.
func decode(text []byte) (histories, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(text), maxText)
	}
	all := histories{}
	if len(text) == 0 {
		return all, nil
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	if all == nil { // the text was null
		return histories{}, nil
	}
	for k, h := range all {
		if h.Counted < 1 || h.Counted > maxCounted {
			return nil, fmt.Errorf("the count %d of an entry is not between 1 and %d", h.Counted, maxCounted)
		}
		if len(k) > 64 {
			return nil, fmt.Errorf("the name of an entry has %d bytes", len(k))
		}
	}
	return all, nil
}

// merge takes later histories from others.
func (all histories) merge(others histories) {
	for k, h := range others {
		if is, ok := all[k]; !ok || h.Last.After(is.Last) {
			h.Counted = max(h.Counted, is.Counted)
			all[k] = h
		} else {
			is.Counted = max(h.Counted, is.Counted)
			all[k] = is
		}
	}
}
