// Package serviceaccount creates client configurations that act as a ServiceAccount of a cluster.
package serviceaccount

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/utils/ptr"
)

const (
	tokenLifetime = time.Hour
	// A token is replaced after this fraction of its lifetime.
	tokenUse = 0.8
)

// Config returns the configuration of a client that acts as an existing ServiceAccount, with
// exactly its permissions. It uses a real token, and replaces the token before expiry for as long
// as the configuration is in use. It has no client-side rate limit.
func Config(ctx context.Context, admin *rest.Config, namespace, name string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return nil, fmt.Errorf("service account %s/%s: %w", namespace, name, err)
	}
	tokens := &accountTokens{client: client, namespace: namespace, name: name}
	first, err := tokens.request(ctx)
	if err != nil {
		return nil, err
	}
	tokens.first = first
	source := transport.NewCachedTokenSource(tokens)
	return &rest.Config{
		Host:            admin.Host,
		TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData},
		QPS:             -1,
		WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
			return transport.ResettableTokenSourceWrapTransport(source)(rt)
		},
	}, nil
}

// accountTokens is an oauth2.TokenSource. It is called by one goroutine at a time.
type accountTokens struct {
	client          kubernetes.Interface
	namespace, name string
	first           *oauth2.Token
}

func (t *accountTokens) Token() (*oauth2.Token, error) {
	if first := t.first; first != nil {
		t.first = nil
		return first, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return t.request(ctx)
}

func (t *accountTokens) request(ctx context.Context) (*oauth2.Token, error) {
	now := time.Now()
	answer, err := t.client.CoreV1().ServiceAccounts(t.namespace).CreateToken(ctx, t.name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(tokenLifetime.Seconds()))},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", t.namespace, t.name, err)
	}
	life := answer.Status.ExpirationTimestamp.Sub(now)
	return &oauth2.Token{AccessToken: answer.Status.Token, Expiry: now.Add(time.Duration(tokenUse * float64(life)))}, nil
}
