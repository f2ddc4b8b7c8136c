package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// oneByOne is the number of measured certificates. Each is created when the one before is Ready.
const oneByOne = 20

// besideLargeKeys measures certificates with ECDSA keys in sequence: without other load, and while
// a number of namespaces continuously request RSA keys of 4096 bits.
func (b *bench) besideLargeKeys(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := b.quiet(ctx); err != nil {
		return err
	}
	alone, err := b.inTurn(ctx, "keys-alone")
	if err != nil {
		return err
	}
	loadCtx, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	var mu sync.Mutex
	made, failed := 0, error(nil)
	for n := range b.keys {
		namespace := fmt.Sprintf("keys-%d", n)
		if err := b.namespace(ctx, namespace); err != nil {
			return err
		}
		load.Go(func() {
			for i := 0; loadCtx.Err() == nil; i++ {
				crt := certificate(inProcess, namespace, i)
				crt.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 4096}
				_, err := b.untilReady(loadCtx, crt)
				mu.Lock()
				if made++; err != nil && loadCtx.Err() == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	// The first keys are being generated.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
	}
	began := time.Now()
	beside, err := b.inTurn(ctx, "keys-beside")
	took := time.Since(began)
	began = time.Now()
	if err == nil {
		err = p.stop()
	}
	stopped := time.Since(began)
	stop()
	load.Wait()
	if err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("a certificate with a large key: %w", failed)
	}
	fmt.Printf("%d ECDSA certificates of a CA ClusterIssuer, one after the other, beside %d namespaces that have RSA "+
		"keys of 4096 bits made without end\n\n", oneByOne, b.keys)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	fmt.Printf("  alone                                 %8.0f ms median  %.0f ms at most\n", ms(quantile(alone, .5)),
		ms(alone[len(alone)-1]))
	fmt.Printf("  beside them                           %8.0f ms median  %.0f ms at most\n", ms(quantile(beside, .5)),
		ms(beside[len(beside)-1]))
	fmt.Printf("  at most twice alone and 500 ms        %8.0f ms\n", ms(2*quantile(alone, .5))+500)
	fmt.Printf("  large keys in %3.0f s                   %8d\n", took.Seconds(), made-b.keys)
	fmt.Printf("  the controller ends in                %8.0f ms\n\n", ms(stopped))
	return nil
}

// inTurn creates certificates in sequence, and returns the sorted times until each was Ready.
func (b *bench) inTurn(ctx context.Context, namespace string) ([]time.Duration, error) {
	if err := b.namespace(ctx, namespace); err != nil {
		return nil, err
	}
	var all []time.Duration
	for i := range oneByOne {
		took, err := b.untilReady(ctx, certificate(inProcess, namespace, i))
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return all, nil
}

// untilReady creates a certificate and returns the time until it is Ready.
func (b *bench) untilReady(ctx context.Context, crt *cmapi.Certificate) (time.Duration, error) {
	watcher, err := b.admin.Watch(ctx, &cmapi.CertificateList{}, client.InNamespace(crt.Namespace))
	if err != nil {
		return 0, err
	}
	defer watcher.Stop()
	began := time.Now()
	if err := b.admin.Create(ctx, crt); err != nil {
		return 0, err
	}
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Minute):
			return 0, fmt.Errorf("%s/%s does not become ready", crt.Namespace, crt.Name)
		case e, ok := <-watcher.ResultChan():
			if !ok || e.Type == watch.Error {
				return 0, fmt.Errorf("watch ended: %v", e.Object)
			}
			is := e.Object.(*cmapi.Certificate)
			if c := cmapi.GetCertificateCondition(&is.Status, cmapi.CertificateConditionReady); is.Name == crt.Name &&
				c != nil && c.Status == cmmeta.ConditionTrue {
				return time.Since(began), nil
			}
		}
	}
}
