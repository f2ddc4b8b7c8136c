package budget

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// remove removes the ConfigMap of a ledger in which nothing is spent, if there is one, and reports
// whether that is done. If not, others have written it.
func (c *CA) remove(ctx context.Context, was *corev1.ConfigMap, changes uint64) (done bool, err error) {
	if was != nil {
		err := c.budget.Client.Delete(ctx, was, client.Preconditions{UID: &was.UID, ResourceVersion: &was.ResourceVersion})
		if apierrors.IsConflict(err) || apierrors.IsForbidden(err) {
			return false, nil
		}
		if client.IgnoreNotFound(err) != nil {
			return false, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.object, c.saved = nil, changes
	return true, nil
}

// sweep removes the ConfigMaps of CAs of which nothing is spent any more: tenants name as many CAs
// as they like.
func (b *Budget) sweep(ctx context.Context) {
	for _, c := range b.all() {
		if err := c.tidy(ctx); err != nil {
			b.Log.V(1).Info("the ConfigMap of a CA of which nothing is spent is not removed yet", "directory", c.directory,
				"error", err.Error())
		}
	}
	var list corev1.ConfigMapList
	if err := b.Client.List(ctx, &list, client.InNamespace(b.Namespace), client.HasLabels{ledgerLabel}); err != nil {
		b.Log.V(1).Info("the ConfigMaps of CAs cannot be listed", "error", err.Error())
		return
	}
	for i := range list.Items {
		o := &list.Items[i]
		ledger, err := Decode([]byte(o.Data[entry]))
		if err != nil || o.Annotations[directoryAnnotation] == "" || b.known(o.Annotations[directoryAnnotation]) {
			continue
		}
		if len(ledger.open) > 0 { // whether these have ended follows from their objects
			c := b.CA(o.Annotations[directoryAnnotation])
			if err := c.load(ctx); err == nil {
				c.soon()
			}
			continue
		}
		if _, err := ledger.Encode(b.Clock.Now()); err != nil || !ledger.empty() {
			continue
		}
		if err := b.Client.Delete(ctx, o,
			client.Preconditions{UID: &o.UID, ResourceVersion: &o.ResourceVersion}); client.IgnoreNotFound(err) != nil {
			b.Log.V(1).Info("the ConfigMap of a CA of which nothing is spent is not removed yet", "configMap", o.Name, "error",
				err.Error())
		}
	}
}

// known reports whether the ledger of a CA is in memory, which tidies it up itself.
func (b *Budget) known(directory string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, is := b.cas[directory]
	return is
}

// tidy removes the ConfigMap if what is written there is over.
func (c *CA) tidy(ctx context.Context) error {
	c.mu.Lock()
	if c.ledger == nil || c.object == nil {
		c.mu.Unlock()
		return nil
	}
	_, err := c.ledger.Encode(c.budget.Clock.Now()) // which forgets what is over
	empty := err == nil && c.ledger.empty()
	if empty {
		c.ledger.changes++
	}
	changes := c.ledger.changes
	c.mu.Unlock()
	if !empty {
		return err
	}
	return c.durable(ctx, changes)
}
