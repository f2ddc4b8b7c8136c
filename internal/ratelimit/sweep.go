package ratelimit

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const notRemoved = "could not remove the ConfigMap of a CA without rate-limit usage"

// remove removes the ConfigMap of a ledger in which nothing is spent, if there is one. It reports
// false if another process has written it, or the controller has no right to remove it.
func (c *CALedger) remove(ctx context.Context, was *corev1.ConfigMap, changes uint64) (done bool, err error) {
	if was != nil {
		same := client.Preconditions{UID: &was.UID, ResourceVersion: &was.ResourceVersion}
		err := c.ledgers.Client.Delete(ctx, was, same)
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

// sweep removes the ConfigMaps of CAs without usage, because tenants may name any number of CAs.
func (l *Ledgers) sweep(ctx context.Context) {
	for _, c := range l.all() {
		if err := c.tidy(ctx); err != nil {
			l.Log.V(1).Info(notRemoved, "directory", c.directory, "error", err.Error())
		}
	}
	var list corev1.ConfigMapList
	if err := l.Client.List(ctx, &list, client.InNamespace(l.Namespace), client.HasLabels{ledgerLabel}); err != nil {
		l.Log.V(1).Info("could not list the ConfigMaps of ACME rate limits", "error", err.Error())
		return
	}
	for i := range list.Items {
		l.sweepOne(ctx, &list.Items[i])
	}
}

// sweepOne removes a ConfigMap if its CA has no usage and its ledger is not in memory.
func (l *Ledgers) sweepOne(ctx context.Context, o *corev1.ConfigMap) {
	directory := o.Annotations[directoryAnnotation]
	ledger, err := Decode([]byte(o.Data[entry]))
	if err != nil || directory == "" || l.known(directory) {
		return
	}
	if len(ledger.open) > 0 { // whether these have ended follows from their Orders
		c := l.For(directory)
		if err := c.load(ctx); err == nil {
			c.writeSoon()
		}
		return
	}
	if _, err := ledger.Encode(l.Clock.Now()); err != nil || !ledger.empty() {
		return
	}
	same := client.Preconditions{UID: &o.UID, ResourceVersion: &o.ResourceVersion}
	if err := client.IgnoreNotFound(l.Client.Delete(ctx, o, same)); err != nil {
		l.Log.V(1).Info(notRemoved, "directory", directory, "configMap", o.Name, "error", err.Error())
	}
}

// known reports whether the ledger of a CA is in memory. tidy removes its ConfigMap then.
func (l *Ledgers) known(directory string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, is := l.cas[directory]
	return is
}

// tidy removes the ConfigMap if all that is in it is over.
func (c *CALedger) tidy(ctx context.Context) error {
	c.mu.Lock()
	if c.ledger == nil || c.object == nil {
		c.mu.Unlock()
		return nil
	}
	_, err := c.ledger.Encode(c.now()) // which forgets what is over
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
