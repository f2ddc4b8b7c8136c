package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/explain"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/internal/signer"
)

// originKinds are the kinds of objects for which Certificates are made.
var originKinds = []schema.GroupKind{
	{Group: "networking.k8s.io", Kind: "Ingress"},
	{Group: "gateway.networking.k8s.io", Kind: "Gateway"},
	{Group: "gateway.networking.k8s.io", Kind: "ListenerSet"},
}

func (p *Program) statusOfOrigin(kind *schema.GroupKind, events *int) *cobra.Command {
	return &cobra.Command{
		Use:   strings.ToLower(kind.Kind) + " NAME",
		Short: fmt.Sprintf("Say whether Certificates are made for the %s as it asks for", kind.Kind),
		Long: fmt.Sprintf("Shows what keeps the %s from being followed, and its Certificates.\n", kind.Kind) +
			"Exit code 3 if something does or a Certificate is not ready, 4 if it does not exist.",
		Args: exactly("the NAME of the " + kind.Kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			origin, uid, err := readOrigin(cmd.Context(), c, *kind, c.namespace, args[0])
			if err != nil {
				return err
			}
			if origin == nil {
				return &exitError{ExitNotFound, fmt.Errorf("there is no %s %q in namespace %q", kind.Kind, args[0], c.namespace)}
			}
			own, namespaces, err := certificatesOf(cmd.Context(), c, origin, uid)
			if err != nil {
				return err
			}
			about := map[types.UID]bool{uid: true}
			for i := range own {
				about[own[i].UID] = true
			}
			report := statusReport{Report: explain.ExplainOrigin(*origin, own)}
			if report.Events, err = eventsOf(cmd.Context(), c, about, namespaces, *events); err != nil {
				return err
			}
			return p.printStatus(report)
		},
	}
}

// certificatesOf lists the Certificates that are made for an object, and the namespaces that are
// involved. It leaves out other namespaces if the user may not list Certificates there.
func certificatesOf(ctx context.Context, c *cluster, o *explain.Origin,
	uid types.UID) (own []cmapi.Certificate, namespaces []string, err error) {
	var all cmapi.CertificateList
	if err := c.List(ctx, &all); apierrors.IsForbidden(err) {
		err = c.List(ctx, &all, client.InNamespace(o.Namespace))
		if err != nil {
			return nil, nil, err
		}
	} else if err != nil {
		return nil, nil, err
	}
	namespaces = []string{o.Namespace}
	for i := range all.Items {
		crt := &all.Items[i]
		owner := metav1.GetControllerOf(crt)
		controlled := crt.Namespace == o.Namespace && owner != nil && owner.UID == uid
		if !controlled && crt.Annotations[signer.RequestedByAnnotation] != o.Kind+"/"+o.Namespace+"/"+o.Name {
			continue
		}
		own = append(own, *crt)
		if !slices.Contains(namespaces, crt.Namespace) {
			namespaces = append(namespaces, crt.Namespace)
		}
	}
	return own, namespaces, nil
}

// readOrigin reads an object for which Certificates are made. It is nil if it does not exist.
func readOrigin(ctx context.Context, c *cluster, kind schema.GroupKind,
	namespace, name string) (*explain.Origin, types.UID, error) {
	mapping, err := c.RESTMapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return nil, "", nil
	} else if err != nil {
		return nil, "", err
	}
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		return nil, "", client.IgnoreNotFound(err)
	}
	return &explain.Origin{Kind: kind.Kind, Namespace: namespace, Name: name,
		Problem: o.Annotations[shim.ProblemAnnotation]}, o.UID, nil
}

// originOf returns the object that a Certificate is made for, or nil if a user made the
// Certificate.
func originOf(ctx context.Context, c *cluster, crt *cmapi.Certificate) (*explain.Origin, error) {
	group, kind, namespace, name := "", "", crt.Namespace, ""
	if owner := metav1.GetControllerOf(crt); owner != nil {
		group, _, _ = strings.Cut(owner.APIVersion, "/")
		kind, name = owner.Kind, owner.Name
	} else if by := strings.Split(crt.Annotations[signer.RequestedByAnnotation], "/"); len(by) == 3 {
		kind, namespace, name = by[0], by[1], by[2]
	}
	for _, k := range originKinds {
		if k.Kind != kind || group != "" && k.Group != group {
			continue
		}
		origin, _, err := readOrigin(ctx, c, k, namespace, name)
		if apierrors.IsForbidden(err) {
			return nil, nil
		}
		return origin, err
	}
	return nil, nil
}

// noCertificate returns the error for a missing Certificate. If an Ingress asks for one of that
// name but has a problem, the error names it.
func noCertificate(ctx context.Context, c *cluster, name string) error {
	message := fmt.Sprintf("there is no Certificate %q in namespace %q", name, c.namespace)
	var list networkingv1.IngressList
	if err := c.List(ctx, &list, client.InNamespace(c.namespace)); err == nil {
		for i := range list.Items {
			problem := list.Items[i].Annotations[shim.ProblemAnnotation]
			asks := slices.ContainsFunc(list.Items[i].Spec.TLS,
				func(tls networkingv1.IngressTLS) bool { return tls.SecretName == name })
			if problem != "" && asks {
				message += fmt.Sprintf(". Ingress %q asks for it, and is not followed as it stands: %s", list.Items[i].Name,
					problem)
			}
		}
	}
	return &exitError{ExitNotFound, fmt.Errorf("%s", message)}
}
