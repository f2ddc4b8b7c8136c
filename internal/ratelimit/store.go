package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// entry is the key of the ledger in the ConfigMap.
	entry = "ledger"
	// directoryAnnotation has the directory of the CA that a ConfigMap belongs to.
	directoryAnnotation = "perennial.dev/acme-directory"
	// ledgerLabel is the label of the ConfigMaps of ledgers. Unneeded ones are found by it.
	ledgerLabel = "perennial.dev/acme-limits"
	// shortDigest is the length of the digest of the directory in the names of ConfigMaps.
	shortDigest = 12
	// ioLimit bounds one attempt to read or write the ledger.
	ioLimit = 10 * time.Second
	// writeTries is the number of attempts to write while other processes write, too.
	writeTries = 4
	// writeDelay is the delay of a write that is not urgent, such as the end of an order, which frees
	// what the order reserved.
	writeDelay = 2 * time.Second
)

// name returns the name of the ConfigMap. It has a short digest of the directory, or the whole
// digest if the ConfigMap of the short name belongs to another CA.
func (c *CALedger) name() types.NamespacedName {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256([]byte(c.directory))
	digest := hex.EncodeToString(sum[:])
	if !c.whole {
		digest = digest[:shortDigest]
	}
	return types.NamespacedName{Namespace: c.ledgers.Namespace, Name: "perennial-acme-limits-" + digest}
}

// get reads the ConfigMap of the CA, which must have the directory as its annotation.
func (c *CALedger) get(ctx context.Context) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{}
	if err := c.ledgers.Client.Get(ctx, c.name(), object); err != nil {
		return nil, err
	}
	if of, annotated := object.Annotations[directoryAnnotation]; !annotated || of == c.directory {
		return object, nil
	}
	c.mu.Lock()
	again := !c.whole
	c.whole = true
	c.mu.Unlock()
	if again {
		return c.get(ctx)
	}
	return nil, fmt.Errorf("ConfigMap %s belongs to another CA", c.name())
}

// load reads the ledger, if it was not read yet.
func (c *CALedger) load(ctx context.Context) error {
	if c.loaded() {
		return nil
	}
	c.loading.Lock()
	defer c.loading.Unlock()
	if c.loaded() {
		return nil
	}
	ledger, object, err := c.read(ctx)
	if err != nil {
		return err
	}
	ledger.Restarted(c.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger, c.object = ledger, object
	if until, _ := ledger.refusedUntil(closedKey, c.now()); until.After(c.closedUntil) {
		c.closedUntil = until
	}
	return nil
}

func (c *CALedger) loaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledger != nil
}

// read reads the ledger and settles it with the Orders. If there is none, or none that can be read,
// it makes one from the Orders.
func (c *CALedger) read(ctx context.Context) (*Ledger, *corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	orders, err := c.ledgers.Orders(ctx, c.directory)
	if err != nil {
		return nil, nil, fault.Transientf("LimitsUnknown", "list the orders to %s: %w", c.directory, err)
	}
	now := c.now()
	object, err := c.get(ctx)
	name := c.name()
	switch {
	case apierrors.IsNotFound(err):
		return Restore(orders, now), nil, nil
	case err != nil:
		c.ledgers.Log.Error(err, "cannot read the rate-limit usage", "directory", c.directory, "configMap", name)
		return nil, nil, fault.Transientf("LimitsUnknown", "the controller cannot read the rate-limit usage of %s, which it "+
			"stores in its own namespace, and sends no order without it: %w", c.directory, fault.Unnamed(err, name.Name))
	}
	ledger, err := Decode([]byte(object.Data[entry]))
	if err != nil {
		const message = "what is spent of the limits of %s cannot be read: %v. " +
			"It is reckoned anew from the Orders that exist; deleted ones are not among them"
		c.ledgers.Events.Eventf(object, corev1.EventTypeWarning, "LimitsForgotten", message, c.directory, err)
		c.ledgers.Log.Info(fmt.Sprintf(message, c.directory, err), "configMap", name)
		return Restore(orders, now), object, nil
	}
	ledger.Settle(orders, now)
	return ledger, object, nil
}

// durable returns when so many changes are written. Concurrent callers share one write.
func (c *CALedger) durable(ctx context.Context, changes uint64) error {
	for {
		c.mu.Lock()
		if c.saved >= changes {
			c.mu.Unlock()
			return nil
		}
		if wait := c.saving; wait != nil {
			c.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return fault.Transientf("LimitsNotWritten",
					"wait until what is spent of the limits of %s is written: %w", c.directory, ctx.Err())
			}
			continue
		}
		c.saving = make(chan struct{})
		c.mu.Unlock()
		err := c.write(ctx)
		c.mu.Lock()
		close(c.saving)
		c.saving = nil
		c.mu.Unlock()
		if err != nil {
			name := c.name()
			c.ledgers.Log.Error(err, "cannot save the rate-limit usage", "directory", c.directory, "configMap", name)
			return fault.Transientf("LimitsNotWritten", "the controller cannot save the rate-limit usage of %s, which it "+
				"stores in its own namespace, and sends no order without it: %w", c.directory, fault.Unnamed(err, name.Name))
		}
	}
}

// write writes the ledger as it is now. If another process has written it, it merges both ledgers
// and tries again.
func (c *CALedger) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	for try := 1; ; try++ {
		overtaken, err := c.writeOnce(ctx)
		if err == nil || try == writeTries || !overtaken {
			return err
		}
		other, object, err := c.read(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.ledger.merge(other)
		c.object = object
		c.mu.Unlock()
	}
}

// writeOnce writes the ledger, or removes the ConfigMap of an empty one. If it fails, overtaken
// says whether another process has written or removed the ConfigMap.
func (c *CALedger) writeOnce(ctx context.Context) (overtaken bool, err error) {
	c.mu.Lock()
	changes := c.ledger.changes
	text, err := c.ledger.Encode(c.now())
	was, empty := c.object, c.ledger.empty()
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	if empty {
		if done, err := c.remove(ctx, was, changes); done || err != nil {
			return false, err
		}
	}
	name := c.name()
	is := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	if was != nil {
		is = was.DeepCopy()
	}
	metav1.SetMetaDataAnnotation(&is.ObjectMeta, directoryAnnotation, c.directory)
	metav1.SetMetaDataLabel(&is.ObjectMeta, ledgerLabel, "")
	is.Data = map[string]string{entry: string(text)}
	if was == nil {
		err = c.ledgers.Client.Create(ctx, is)
	} else {
		err = c.ledgers.Client.Patch(ctx, is, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
	}
	switch {
	case apierrors.IsNotFound(err):
		return was != nil, err // if there was none, the namespace does not exist
	case err != nil:
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err), err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.object, c.saved = is, changes
	return false, nil
}

// writeSoon has the changes written in a moment, together with those that follow until then.
func (c *CALedger) writeSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil || c.ledger == nil || c.saved >= c.ledger.changes {
		return
	}
	c.timer = time.AfterFunc(writeDelay, func() {
		ctx, cancel := context.WithTimeout(context.Background(), ioLimit)
		defer cancel()
		if err := c.flush(ctx); err != nil {
			c.ledgers.Log.V(1).Info("not written yet", "error", err.Error()) // the next change or order tries again
		}
	})
}

// flush writes the changes that are not written.
func (c *CALedger) flush(ctx context.Context) error {
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	must := uint64(0)
	if c.ledger != nil {
		must = c.ledger.changes
	}
	c.mu.Unlock()
	if must == 0 {
		return nil
	}
	return c.durable(ctx, must)
}
