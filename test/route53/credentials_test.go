package route53_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/test/aws"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/internet"
)

const (
	keyID, secretKey = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	user             = "arn:aws:iam::123456789012:user/dns"
	otherAccount     = "arn:aws:iam::999999999999:role/dns"
	shopRole         = "arn:aws:iam::123456789012:role/shop-dns"
)

// withUser adds to the cloud a user with a key that may change the public zone, and roles that only
// some identities may assume.
func withUser(c *aws.Cloud) {
	c.Keys = map[string]aws.Key{keyID: {Of: user, Secret: secretKey}}
	c.Access[zone] = append(c.Access[zone], user, otherAccount, shopRole)
	c.Trust = map[string][]string{otherAccount: {user}}
}

// in is the world for a part of a test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.T = t
	return &part
}

// issuer is what makes the ClusterIssuer of examples/dns01/route53.yaml, and its Certificate, those
// of a namespace.
func issuer(namespace string) []string {
	return []string{
		"kind: ClusterIssuer",
		"kind: Issuer",
		"  name: route53\nspec:",
		"  name: route53\n  namespace: " + namespace + "\nspec:",
		"namespace: shop",
		"namespace: " + namespace,
	}
}

const (
	// inline is the access key of examples/dns01/route53.yaml.
	inline = `          accessKeyID: AKIAIOSFODNN7EXAMPLE
          secretAccessKeySecretRef:
            name: route53
            key: secret-access-key
`
	fields = "          "
)

// key creates the Secret of the access key.
func (w *world) key(namespace, secret string) {
	w.Helper()
	o := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "route53"},
		StringData: map[string]string{"access-key-id": keyID, "secret-access-key": secret + "\n"},
	}
	if err := w.admin.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
}

// said waits until a challenge reports why it is blocked.
func (w *world) said(namespace, says string) {
	w.Helper()
	cluster.Eventually(w, func() error {
		if story := internet.Story(w, w.admin, client.InNamespace(namespace)); !strings.Contains(story, says) {
			return cluster.NotYet("it does not say %q: %s", says, story)
		}
		return nil
	})
}

func TestCertificatesByRoute53WithAnAccessKey(t *testing.T) {
	w := start(t, withUser)
	cluster.Process(t, w.env, w.flags...)
	for name, test := range map[string]struct {
		replace []string
		by      string // identity that changes the zone
		never   string // what is not called
		region  string
	}{
		"whose ID stands in the issuer": {nil, user, "AssumeRole ", "us-east-1"},
		"whose ID stands in a Secret": {[]string{fields + "accessKeyID: " + keyID, fields + "accessKeyIDSecretRef: " +
			"{name: route53, key: access-key-id}"}, user, "AssumeRole ", "us-east-1"},
		"that assumes a role":           {[]string{inline, inline + fields + "role: " + otherAccount + "\n"}, otherAccount, "ChangeResourceRecordSets " + user, "us-east-1"},
		"and the ID of the zone":        {[]string{inline, inline + fields + "hostedZoneID: " + zone + "\n"}, user, "ListHostedZonesByName " + user, "us-east-1"},
		"and the zone as AWS prints it": {[]string{inline, inline + fields + "hostedZoneID: /hostedzone/" + zone + "\n"}, user, "ListHostedZonesByName " + user, "us-east-1"},
		"and a region":                  {[]string{inline, inline + fields + "region: eu-central-1\n"}, user, "AssumeRole ", "eu-central-1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			namespace := cluster.Namespace(t)
			calls, regions := len(w.cloud.Calls()), len(w.cloud.Regions())
			w.key(namespace, secretKey)
			w.apply("dns01/route53.yaml", append(test.replace, issuer(namespace)...)...)
			w.ready(namespace, "route53", zone)
			did := w.cloud.Calls()[calls:]
			if !slices.Contains(did, "ChangeResourceRecordSets "+test.by) ||
				slices.ContainsFunc(did, func(c string) bool { return strings.HasPrefix(c, test.never) }) {
				t.Errorf("it did %q", did)
			}
			if signed := w.cloud.Regions()[regions:]; !slices.Contains(signed, test.region) {
				t.Errorf("it signs for %q", signed)
			}
		})
	}
	for name, test := range map[string]struct {
		secret  string
		replace []string
		says    string
	}{
		"that is wrong": {"another secret", nil, "AWS does not let us list the hosted zones by name " +
			"(route53:ListHostedZonesByName): SignatureDoesNotMatch"},
		"unknown":            {secretKey, []string{keyID, "AKIAIOSFODNN7NOBODYS"}, "InvalidClientTokenId"},
		"without the Secret": {secretKey, []string{"            name: route53\n", "            name: other\n"}, "dns01.route53.secretAccessKeySecretRef, does not exist: create it with the entry secret-access-key"},
		"without the entry":  {secretKey, []string{"key: secret-access-key", "key: other"}, "dns01.route53.secretAccessKeySecretRef, has no entry other"},
		"without its ID": {secretKey, []string{fields + "accessKeyID: " + keyID + "\n", ""}, "has an access " +
			"key ID or a secret access key, but not both: set both, or none"},
		"that may not assume":       {secretKey, []string{inline, inline + fields + "role: " + shopRole + "\n"}, "is not authorized to perform: sts:AssumeRole on resource: " + shopRole},
		"and another client's zone": {secretKey, []string{inline, inline + fields + "hostedZoneID: ZPRIVATE\n"}, "AWS does not let us change the TXT records of _acme-challenge.example.com.: AccessDenied"},
		"and no key, for an Issuer": {secretKey, []string{inline, fields + "region: us-east-1\n"}, "may not use the " +
			"controller's own: set accessKeyID and secretAccessKeySecretRef, or auth.kubernetes, or start the controller " +
			"with --issuer-ambient-credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			namespace := cluster.Namespace(t)
			w.key(namespace, test.secret)
			w.apply("dns01/route53.yaml", append(test.replace, issuer(namespace)...)...)
			w.said(namespace, test.says)
			if story := internet.Story(
				w,
				w.admin,
			); strings.Contains(story, secretKey) ||
				strings.Contains(story, "another secret") {
				t.Errorf("the secret is told: %s", story)
			}
		})
	}
}

func TestCertificatesByRoute53WithTheTokensOfAServiceAccount(t *testing.T) {
	// STS asks the cluster whose tokens they are, as it would its OIDC provider.
	audience, account, admin := "", "", cluster.Admin(t)
	w := start(t, withUser, func(c *aws.Cloud) {
		c.OIDC = func(token, role string) bool {
			review := &authenticationv1.TokenReview{
				Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
			}
			err := admin.Create(context.Background(), review)
			return err == nil && role == shopRole && review.Status.Authenticated && review.Status.User.Username == account &&
				slices.Equal(review.Status.Audiences, []string{audience})
		}
	})
	cluster.Process(t, w.env, w.flags...)
	for name, test := range map[string]struct {
		audience string
		replace  []string
		says     string // issued if empty
	}{
		"for AWS": {"sts.amazonaws.com", nil, ""},
		"for another audience": {"dns.example.com", []string{"                name: route53\n", "                " +
			"name: route53\n                audiences: [dns.example.com]\n"}, ""},
		"that AWS does not take": {"dns.example.com", nil, "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"that is not there": {"sts.amazonaws.com", []string{"                name: route53\n", "                " +
			"name: missing\n", "resourceNames: [route53]\n", "resourceNames: [missing]\n"},
			"/missing, dns01.route53.auth.kubernetes.serviceAccountRef, does not exist: create it"},
		"without a role": {"sts.amazonaws.com", []string{fields + "role: " + shopRole + "\n", ""}, "dns01.route53.auth.kubernetes needs role"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			namespace := cluster.Namespace(t)
			audience, account = test.audience, "system:serviceaccount:"+namespace+":route53"
			calls := len(w.cloud.Calls())
			w.apply("dns01/route53-serviceaccount.yaml", append(test.replace, "namespace: shop", "namespace: "+namespace)...)
			if test.says != "" {
				w.said(namespace, test.says)
				return
			}
			w.ready(namespace, "route53", zone)
			if did := w.cloud.Calls()[calls:]; !slices.Contains(did, "ChangeResourceRecordSets "+shopRole) {
				t.Errorf("it did %q", did)
			}
		})
	}
	t.Run("that the controller may not ask for, until it may", func(t *testing.T) {
		w := w.in(t)
		namespace := cluster.Namespace(t)
		audience, account = "sts.amazonaws.com", "system:serviceaccount:"+namespace+":route53"
		w.apply(
			"dns01/route53-serviceaccount.yaml",
			"verbs: [create]",
			"verbs: [get]",
			"namespace: shop",
			"namespace: "+namespace,
		)
		w.said(
			namespace,
			"the controller may not ask for tokens of ServiceAccount "+namespace+"/route53: allow it by a Role with the "+
				"verb create on serviceaccounts/token",
		)
		role := &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "route53-tokens"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
			},
		}
		if err := w.admin.Update(t.Context(), role); err != nil {
			t.Fatal(err)
		}
		w.ready(namespace, "route53", zone)
	})
}

func TestTheFlagsSayWhoseSolversMayUseTheControllersCredentials(t *testing.T) {
	w := start(t)
	cluster.Process(
		t,
		w.env,
		append(w.flags, "--issuer-ambient-credentials", "--cluster-issuer-ambient-credentials=false")...)
	t.Run("those of an Issuer", func(t *testing.T) {
		w := w.in(t)
		namespace := cluster.Namespace(t)
		w.apply("dns01/route53.yaml", append([]string{inline, fields + "region: us-east-1\n"}, issuer(namespace)...)...)
		w.ready(namespace, "route53", zone)
	})
	t.Run("not those of a ClusterIssuer", func(t *testing.T) {
		w := w.in(t)
		namespace := cluster.Namespace(t)
		w.apply("dns01/route53.yaml", inline, fields+"region: us-east-1\n", "namespace: shop", "namespace: "+namespace)
		w.said(namespace, "or start the controller with --cluster-issuer-ambient-credentials")
	})
}

func TestAPrivateZoneOfTheSameNameIsChangedByItsIDAlone(t *testing.T) {
	public, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(public.Close)
	w := start(t, withUser, func(c *aws.Cloud) {
		c.DNS, c.Inside = public, c.DNS // the CA is inside
		c.Access["ZPRIVATE"] = append(c.Access["ZPRIVATE"], user)
	})
	const private = "ZPRIVATE"
	w.cloud.Put(private, record, "another client's")
	cluster.Process(t, w.env, w.flags...)
	namespace := cluster.Namespace(t)
	w.key(namespace, secretKey)
	w.apply(
		"dns01/route53.yaml",
		append([]string{inline, inline + fields + "hostedZoneID: " + private + "\n"}, issuer(namespace)...)...)
	w.ready(namespace, "route53", private)
	if got := w.cloud.Values(zone, record); !slices.Equal(got, []string{"another client's"}) {
		t.Errorf("the public zone has %q", got)
	}
	if calls := w.cloud.Calls(); slices.Contains(calls, "ListHostedZonesByName "+user) {
		t.Errorf("it did %q", calls)
	}
}
