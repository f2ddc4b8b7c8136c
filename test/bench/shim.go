package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ingressBurst measures the time from the creation of many annotated Ingresses until all their
// Secrets exist.
func (b *bench) ingressBurst(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	const namespace = "ingresses"
	if err := b.namespace(ctx, namespace); err != nil {
		return err
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}
	before, err := b.requests(ctx)
	if err != nil {
		return err
	}
	watcher, err := b.admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace))
	if err != nil {
		return err
	}
	defer watcher.Stop()
	var mu sync.Mutex
	created := map[string]time.Time{}
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		failed <- b.each(ctx, b.ingresses, func(ctx context.Context, c client.Client, i int) error {
			o := ingress(namespace, i)
			mu.Lock()
			created[o.Name] = time.Now()
			mu.Unlock()
			return c.Create(ctx, o)
		})
	}()
	var took []time.Duration
	for len(took) < b.ingresses {
		select {
		case err := <-failed:
			if err != nil {
				return err
			}
			failed = nil
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("no Secret came for 2 minutes, %d of %d have", len(took), b.ingresses)
		case e, ok := <-watcher.ResultChan():
			if !ok || e.Type == watch.Error {
				return fmt.Errorf("watch ended: %v", e.Object)
			}
			if s := e.Object.(*corev1.Secret); e.Type == watch.Added && s.Type == corev1.SecretTypeTLS {
				mu.Lock()
				took = append(took, time.Since(created[s.Name]))
				mu.Unlock()
			}
		}
	}
	all := time.Since(began)
	slices.Sort(took)
	if err := b.quiet(ctx); err != nil {
		return err
	}
	after, err := b.requests(ctx)
	if err != nil {
		return err
	}
	total, lines := after.since(before).writes()
	fmt.Printf("%d annotated Ingresses, created by %d clients at once\n\n", b.ingresses, b.clients)
	fmt.Printf(
		"  until all Secrets exist               %8.1f s, %.1f a second\n",
		all.Seconds(),
		float64(b.ingresses)/all.Seconds(),
	)
	fmt.Printf(
		"  from create to Secret                 %8.0f ms p50  %.0f ms p99\n",
		quantile(took, .5).Seconds()*1000,
		quantile(took, .99).Seconds()*1000,
	)
	fmt.Printf("  write requests, without the load's    %8.2f an Ingress\n", total/float64(b.ingresses))
	for _, l := range lines {
		fmt.Printf("    %s\n", l)
	}
	fmt.Println()
	return nil
}

func ingress(namespace string, i int) *networkingv1.Ingress {
	name := fmt.Sprintf("ing-%05d", i)
	host := name + ".bench.example.com"
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{
			"cert-manager.io/cluster-issuer": issuerName, "cert-manager.io/private-key-algorithm": "ECDSA",
		}},
		Spec: networkingv1.IngressSpec{
			IngressClassName: ptr.To("nginx"),
			TLS:              []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: name}},
			Rules: []networkingv1.IngressRule{
				{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{
						{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: networkingv1.IngressBackend{
							Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}},
					},
				}}},
			},
		},
	}
}

// foreignSecrets measures the cost of unrelated Secrets for the controller.
func (b *bench) foreignSecrets(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	const namespace = "foreign"
	if err := b.namespace(ctx, namespace); err != nil {
		return err
	}
	if _, err := b.steady(ctx, p, time.Now()); err != nil {
		return err
	}
	base, _, err := p.memory()
	if err != nil {
		return err
	}
	reconciled, err := reconciles(ctx)
	if err != nil {
		return err
	}
	data := map[string][]byte{"value": make([]byte, 1<<10)}
	if err := b.each(ctx, b.secrets, func(ctx context.Context, c client.Client, i int) error {
		return c.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace:   namespace,
			Name:        fmt.Sprintf("foreign-%05d", i),
			Labels:      map[string]string{"app": "something", "team": "another"},
			Annotations: map[string]string{"meta.example.com/note": "a Secret without certificates"},
		}, Data: data})
	}); err != nil {
		return err
	}
	if _, err := b.steady(ctx, p, time.Now()); err != nil {
		return err
	}
	now, peak, err := p.memory()
	if err != nil {
		return err
	}
	since, err := reconciles(ctx)
	if err != nil {
		return err
	}
	if err := p.stop(); err != nil {
		return err
	}
	fmt.Printf("%d Secrets of 1 KiB that are none of the controller's\n\n", b.secrets)
	fmt.Printf("  memory of the controller before       %8.0f MiB\n", base)
	fmt.Printf("  memory they add                       %8.0f MiB, %.0f MiB at most\n", now-base, peak-base)
	fmt.Printf("  reconciles that they cause            %8.0f\n", since-reconciled)
	if p, err = b.start(ctx); err != nil {
		return err
	}
	defer p.stop()
	if _, err := b.steady(ctx, p, time.Now()); err != nil {
		return err
	}
	if now, peak, err = p.memory(); err != nil {
		return err
	}
	fmt.Printf("  memory after a restart                %8.0f MiB, %.0f MiB at most\n", now, peak)
	return nil
}

// reconciles is the number of calls of all reconcilers so far.
func reconciles(ctx context.Context) (float64, error) {
	return gauge(ctx, "certmanager_controller_sync_call_count")
}

// gauge is the sum of a metric of the controller.
func gauge(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:19402/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, err
	}
	family := families[name]
	if family == nil {
		return 0, fmt.Errorf("the controller has no metric %s", name)
	}
	var total float64
	for _, m := range family.GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return total, nil
}
