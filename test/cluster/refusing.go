package cluster

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Write is a write that a client is about to make.
type Write struct {
	// Verb is create, delete, patch, apply or status.
	Verb   string
	Object client.Object // nil for the apply of a Secret
	Name   string
}

// WriteOf returns a rule for a verb and the objects of a type.
func WriteOf[T client.Object](verb string) func(Write) bool {
	return func(w Write) bool {
		_, is := w.Object.(T)
		return is && w.Verb == verb
	}
}

// RefusedBecause is the message of a refusal.
const RefusedBecause = "certificate changes are frozen over the holidays"

// Refusal refuses writes that match a rule, like an admission policy.
type Refusal struct {
	mu    sync.Mutex
	rule  func(Write) bool
	count int
}

// Begin refuses, from now on, the writes for which rule returns true.
func (r *Refusal) Begin(rule func(Write) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rule, r.count = rule, 0
}

// End stops the refusals.
func (r *Refusal) End() { r.Begin(nil) }

// Count returns the number of refused writes since Begin.
func (r *Refusal) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Wrap returns a client whose writes are refused.
func (r *Refusal) Wrap(c client.Client) client.Client { return &refused{c, r} }

func (r *Refusal) judge(w Write) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rule == nil || !r.rule(w) {
		return nil
	}
	r.count++
	resource := schema.GroupResource{Resource: "objects"}
	return apierrors.NewForbidden(resource, w.Name,
		fmt.Errorf("ValidatingAdmissionPolicy 'freeze' with binding 'freeze' denied request: %s", RefusedBecause))
}

type refused struct {
	client.Client
	by *Refusal
}

func (c *refused) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	if err := c.by.judge(Write{"create", o, o.GetName()}); err != nil {
		return err
	}
	return c.Client.Create(ctx, o, options...)
}

func (c *refused) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	if err := c.by.judge(Write{"delete", o, o.GetName()}); err != nil {
		return err
	}
	return c.Client.Delete(ctx, o, options...)
}

func (c *refused) Patch(ctx context.Context, o client.Object, p client.Patch, options ...client.PatchOption) error {
	if err := c.by.judge(Write{"patch", o, o.GetName()}); err != nil {
		return err
	}
	return c.Client.Patch(ctx, o, p, options...)
}

func (c *refused) Apply(ctx context.Context, o runtime.ApplyConfiguration, options ...client.ApplyOption) error {
	w := Write{Verb: "apply"}
	switch o := o.(type) {
	case *corev1ac.SecretApplyConfiguration:
		w.Name = *o.Name
	case client.Object: // made of an unstructured object
		w.Object, w.Name = o, o.GetName()
	}
	if err := c.by.judge(w); err != nil {
		return err
	}
	return c.Client.Apply(ctx, o, options...)
}

func (c *refused) Status() client.SubResourceWriter {
	return &refusedStatus{c.Client.Status(), c.by}
}

type refusedStatus struct {
	client.SubResourceWriter
	by *Refusal
}

func (c *refusedStatus) Patch(ctx context.Context, o client.Object, p client.Patch,
	options ...client.SubResourcePatchOption) error {
	if err := c.by.judge(Write{"status", o, o.GetName()}); err != nil {
		return err
	}
	return c.SubResourceWriter.Patch(ctx, o, p, options...)
}
