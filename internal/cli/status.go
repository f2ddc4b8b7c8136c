package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/explain"
	"github.com/perennial-pki/perennial/internal/external"
)

func (p *Program) status() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Say what state something is in, and what to do", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	events := 8
	certificate := &cobra.Command{
		Use: "certificate NAME", Aliases: []string{"cert", "crt"},
		Short: "Say what state a Certificate is in, and what to do",
		Long: "Follows a Certificate to its Secret: each object on the way, its state, why, and the latest events.\n" +
			"Exit code 3 if the Certificate is not ready, 4 if it does not exist.",
		Args: exactly("the NAME of a Certificate"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			return p.statusOf(cmd.Context(), c, args[0], events)
		},
	}
	cmd.AddCommand(certificate, p.statusOfTrustBundle(&events))
	for i := range originKinds {
		cmd.AddCommand(p.statusOfOrigin(&originKinds[i], &events))
	}
	for _, c := range cmd.Commands() {
		p.kubeFlags(c)
		p.outputFlag(c)
		c.Flags().IntVar(&events, "events", events, "how many of the latest events to show")
	}
	return cmd
}

// statusReport is what status certificate prints as JSON.
type statusReport struct {
	explain.Report
	Events []eventLine `json:"events"`
}

type eventLine struct {
	Time    metav1.Time `json:"time"`
	Type    string      `json:"type"`
	Object  string      `json:"object"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Count   int32       `json:"count"`
}

func (p *Program) statusOf(ctx context.Context, c *cluster, name string, limit int) error {
	objects, err := gather(ctx, c, name)
	if err != nil {
		return err
	}
	report := statusReport{Report: explain.Explain(objects, p.Clock.Now())}
	about, namespaces := objectsOf(c, objects)
	if report.Events, err = eventsOf(ctx, c, about, namespaces, limit); err != nil {
		return err
	}
	return p.printStatus(report)
}

// printStatus prints a report. Its error is the exit code.
func (p *Program) printStatus(report statusReport) error {
	now := p.Clock.Now()
	if p.json() {
		if err := p.printJSON(report); err != nil {
			return err
		}
	} else {
		name := report.Name
		if report.Namespace != "" {
			name = report.Namespace + "/" + name
		}
		fmt.Fprintf(p.Out, "%s %s %s\n", report.Kind, name, report.Summary)
		if report.Next != "" {
			fmt.Fprintf(p.Out, "Next: %s\n", report.Next)
		}
		fmt.Fprintln(p.Out)
		w := p.table()
		for _, s := range report.Steps {
			since := ""
			if s.Since != nil {
				since = explain.Until(s.Since.Time, now)
			}
			fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\n", s.Kind, s.Name, s.State, since, s.Detail)
		}
		w.Flush()
		if len(report.Events) > 0 {
			fmt.Fprintln(p.Out, "\nEvents")
			for _, e := range report.Events {
				times := ""
				if e.Count > 1 {
					times = fmt.Sprintf(" (%d times)", e.Count)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", explain.Until(e.Time.Time, now), e.Object, e.Reason, e.Message, times)
			}
			w.Flush()
		}
	}
	if !report.Ready {
		return &exitError{code: ExitNotReady}
	}
	return nil
}

// gather reads the objects that belong to a Certificate.
func gather(ctx context.Context, c *cluster, name string) (explain.Objects, error) {
	o := explain.Objects{Certificate: &cmapi.Certificate{}}
	in := client.InNamespace(c.namespace)
	if err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, o.Certificate); err != nil {
		if apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
			return o, noCertificate(ctx, c, name)
		}
		return o, err
	}
	crt := o.Certificate
	var err error
	if o.Origin, err = originOf(ctx, c, crt); err != nil {
		return o, err
	}
	if err := gatherIssuer(ctx, c, &o); err != nil {
		return o, err
	}
	var requests cmapi.CertificateRequestList
	if err := c.List(ctx, &requests, in); err != nil {
		return o, err
	}
	for _, r := range requests.Items {
		if metav1.IsControlledBy(&r, crt) {
			o.Requests = append(o.Requests, r)
		}
	}
	if err := gatherACME(ctx, c, &o); err != nil {
		return o, err
	}
	if err := gatherFiles(ctx, c, &o); err != nil {
		return o, err
	}
	return o, gatherSecret(ctx, c, &o)
}

// gatherIssuer reads the issuer of a Certificate.
func gatherIssuer(ctx context.Context, c *cluster, o *explain.Objects) error {
	ref := o.Certificate.Spec.IssuerRef
	if ref.GroupOrDefault() != cmmeta.DefaultIssuerGroup {
		is, err := external.Look(ctx, c, c.RESTMapper(), c.namespace, ref)
		if err != nil {
			return err
		}
		o.ExternalIssuer = &is
		return nil
	}
	var issuer interface {
		client.Object
		cmapi.GenericIssuer
	} = &cmapi.Issuer{}
	key := client.ObjectKey{Namespace: c.namespace, Name: ref.Name}
	if ref.KindOrDefault() == "ClusterIssuer" {
		issuer, key.Namespace = &cmapi.ClusterIssuer{}, ""
	}
	if err := c.Get(ctx, key, issuer); err == nil {
		o.Issuer = issuer
	} else if !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// gatherACME reads the Orders and Challenges of a namespace. A user without the right to list them
// gets the rest.
func gatherACME(ctx context.Context, c *cluster, o *explain.Objects) error {
	in := client.InNamespace(c.namespace)
	var orders acmev1.OrderList
	if err := c.List(ctx, &orders, in); err == nil {
		o.Orders = orders.Items
	} else if !apierrors.IsForbidden(err) && !meta.IsNoMatchError(err) {
		return err
	}
	var challenges acmev1.ChallengeList
	if err := c.List(ctx, &challenges, in); err == nil {
		o.Challenges = challenges.Items
	} else if !apierrors.IsForbidden(err) && !meta.IsNoMatchError(err) {
		return err
	}
	return nil
}

// gatherFiles reads the CertificateFiles of a Certificate. They exist only where perenniald runs on
// a machine.
func gatherFiles(ctx context.Context, c *cluster, o *explain.Objects) error {
	var files perennial.CertificateFileList
	if err := c.List(ctx, &files); err != nil {
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil
		}
		return err
	}
	for _, f := range files.Items {
		ref := f.Spec.CertificateRef
		if ref.Namespace == o.Certificate.Namespace && ref.Name == o.Certificate.Name {
			o.Files = append(o.Files, f)
		}
	}
	return nil
}

// gatherSecret reads the Secret of a Certificate, if the user may.
func gatherSecret(ctx context.Context, c *cluster, o *explain.Objects) error {
	secret := &corev1.Secret{}
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: o.Certificate.Spec.SecretName}, secret)
	switch {
	case err == nil:
		o.Secret = secret
	case apierrors.IsForbidden(err):
		o.SecretHidden = true
	case !apierrors.IsNotFound(err):
		return err
	}
	return nil
}

// latest returns when an event happened last. Events of the events.k8s.io API have other fields for
// it.
func latest(e *corev1.Event) metav1.Time {
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		return metav1.NewTime(e.Series.LastObservedTime.Time)
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp
	case !e.EventTime.IsZero():
		return metav1.NewTime(e.EventTime.Time)
	}
	return e.CreationTimestamp
}

// occurrences is how often an event happened.
func occurrences(e *corev1.Event) int32 {
	if e.Series != nil {
		return e.Series.Count
	}
	return max(1, e.Count) // events.k8s.io has no count of a single one
}

// objectsOf returns the objects whose events concern a Certificate, and the namespaces of these
// events.
func objectsOf(c *cluster, o explain.Objects) (about map[types.UID]bool, namespaces []string) {
	about = map[types.UID]bool{o.Certificate.UID: true}
	if owner := metav1.GetControllerOf(o.Certificate); owner != nil {
		about[owner.UID] = true
	}
	if o.Issuer != nil {
		about[o.Issuer.GetUID()] = true
	}
	for i := range o.Files {
		about[o.Files[i].UID] = true
	}
	for i := range o.Requests {
		about[o.Requests[i].UID] = true
	}
	for i := range o.Orders {
		if owner := metav1.GetControllerOf(&o.Orders[i]); owner != nil && about[owner.UID] {
			about[o.Orders[i].UID] = true
		}
	}
	for i := range o.Challenges {
		if owner := metav1.GetControllerOf(&o.Challenges[i]); owner != nil && about[owner.UID] {
			about[o.Challenges[i].UID] = true
		}
	}
	namespaces = []string{c.namespace}
	if (o.Issuer != nil && o.Issuer.GetNamespace() == "" || len(o.Files) > 0) && c.namespace != metav1.NamespaceDefault {
		namespaces = append(namespaces, metav1.NamespaceDefault) // events about cluster-scoped objects
	}
	return about, namespaces
}

// eventsOf returns the latest events about the objects, the latest last.
func eventsOf(ctx context.Context, c *cluster, about map[types.UID]bool, namespaces []string,
	limit int) ([]eventLine, error) {
	lines := []eventLine{}
	for _, namespace := range namespaces {
		var list corev1.EventList
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			if apierrors.IsForbidden(err) {
				continue
			}
			return nil, err
		}
		for _, e := range list.Items {
			if about[e.InvolvedObject.UID] {
				lines = append(lines, eventLine{Time: latest(&e), Type: e.Type,
					Object: e.InvolvedObject.Kind + " " + e.InvolvedObject.Name,
					Reason: e.Reason, Message: e.Message, Count: occurrences(&e)})
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b eventLine) int {
		return cmp.Or(a.Time.Compare(b.Time.Time), strings.Compare(a.Object, b.Object))
	})
	if len(lines) > limit {
		lines = lines[len(lines)-limit:]
	}
	return lines, nil
}
