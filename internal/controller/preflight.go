package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/definitions"
)

const (
	// incumbentSuffix ends the identities with which cert-manager holds the Lease.
	incumbentSuffix = "-external-cert-manager-controller"

	// defaultStartTimeout is how long the controller waits for what must be there before it starts,
	// such as definitions that are applied together with it. A cert-manager that was killed holds the
	// Lease for a minute.
	defaultStartTimeout = 70 * time.Second
	preflightInterval   = 2 * time.Second
)

// preflight waits until the cluster is fit for the controller. Its error, with which the process
// ends, says what to do. Kubernetes shows the last lines of the log as the state of a container
// that has ended.
func preflight(ctx context.Context, cfg *rest.Config, scheme *runtime.Scheme, o Options) error {
	c, err := client.New(cfg, client.Options{Scheme: scheme}) // it caches nothing
	if err != nil {
		return fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	var problem error
	ready := func(ctx context.Context) (bool, error) {
		err := fit(ctx, c, o)
		if ctx.Err() != nil {
			return false, nil // the last problem counts, not that the time is over
		}
		if err != nil && (problem == nil || problem.Error() != err.Error()) {
			o.Log.Info("waiting to start", "because", err.Error(), "atMost", o.StartTimeout)
		}
		problem = err
		return err == nil, nil
	}
	if err = wait.PollUntilContextTimeout(ctx, preflightInterval, o.StartTimeout, true, ready); err == nil {
		return nil
	}
	return cmp.Or(problem, fmt.Errorf("the Kubernetes API does not answer: %w", err))
}

// fit says why the controller cannot start.
func fit(ctx context.Context, c client.Client, o Options) error {
	return errors.Join(missingDefinitions(ctx, c, o), heldByCertManager(ctx, c, o))
}

// missingDefinitions says which definitions are not there.
func missingDefinitions(ctx context.Context, c client.Client, o Options) error {
	state, err := definitions.Look(ctx, c, o.Namespace != "")
	switch {
	case apierrors.IsForbidden(err):
		o.Log.V(1).Info("cannot see whether the CustomResourceDefinitions are installed", "error", err.Error())
		return nil
	case err != nil:
		return err
	case state.Problem() != "":
		return errors.New(state.Problem())
	}
	if note := state.Note(); note != "" {
		o.Log.Info(note)
	}
	return nil
}

// heldByCertManager says that a running cert-manager holds the Lease.
func heldByCertManager(ctx context.Context, c client.Reader, o Options) error {
	if !o.LeaderElection {
		return nil
	}
	lease := &coordinationv1.Lease{}
	err := c.Get(ctx, client.ObjectKey{Namespace: o.LeaseNamespace, Name: leaseName}, lease)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read Lease %s/%s: %w", o.LeaseNamespace, leaseName, err)
	}
	holder := lease.Spec.HolderIdentity
	if holder == nil || !strings.HasSuffix(*holder, incumbentSuffix) || lease.Spec.RenewTime == nil ||
		lease.Spec.LeaseDurationSeconds == nil {
		return nil
	}
	lasts := time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
	if !o.Clock.Now().Before(lease.Spec.RenewTime.Add(lasts)) {
		return nil
	}
	return fmt.Errorf("cert-manager runs in this cluster: its pod %s holds the Lease %s/%s; scale its Deployments to "+
		"zero, as docs/migrate-from-cert-manager.md says", strings.TrimSuffix(*holder, incumbentSuffix), o.LeaseNamespace,
		leaseName)
}
