package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/explain"
)

// listLine is a Certificate in what list prints as JSON.
type listLine struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Ready       string       `json:"ready"`
	Reason      string       `json:"reason,omitempty"`
	Message     string       `json:"message,omitempty"`
	NotAfter    *metav1.Time `json:"notAfter,omitempty"`
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`
	Attempts    int          `json:"failedIssuanceAttempts,omitempty"`
	Issuer      string       `json:"issuer"`
	SecretName  string       `json:"secretName"`
}

// listPage is how many Certificates are read at once.
const listPage = 500

func (p *Program) list() *cobra.Command {
	var all, bad bool
	var selector string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List Certificates, those first that are not ready or expire next",
		Long: "Lists Certificates: first those that are not ready, then the others by their expiry.\nExit code 3 if " +
			"any is not ready.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			options, err := selection(c, all, selector)
			if err != nil {
				return err
			}
			lines := []listLine{}
			err = eachCertificate(cmd, c, options, func(crt *cmapi.Certificate) error {
				if line := lineOf(crt); !bad || line.Ready != "True" {
					lines = append(lines, line)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return p.printList(lines, all)
		},
	}
	p.kubeFlags(cmd)
	p.outputFlag(cmd)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "in all namespaces")
	cmd.Flags().BoolVar(&bad, "not-ready", false, "only those that are not ready")
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "only those with these labels")
	return cmd
}

// selection are the options for a list of Certificates.
func selection(c *cluster, all bool, selector string) ([]client.ListOption, error) {
	var options []client.ListOption
	if !all {
		options = append(options, client.InNamespace(c.namespace))
	}
	if selector != "" {
		parsed, err := metav1.ParseToLabelSelector(selector)
		if err != nil {
			return nil, usage("-l: %w", err)
		}
		s, err := metav1.LabelSelectorAsSelector(parsed)
		if err != nil {
			return nil, usage("-l: %w", err)
		}
		options = append(options, client.MatchingLabelsSelector{Selector: s})
	}
	return options, nil
}

// eachCertificate calls f for each Certificate, reading some at a time.
func eachCertificate(
	cmd *cobra.Command,
	c *cluster,
	options []client.ListOption,
	f func(*cmapi.Certificate) error,
) error {
	next := ""
	for {
		var list cmapi.CertificateList
		if err := c.List(
			cmd.Context(),
			&list,
			append(slices.Clone(options), client.Limit(listPage), client.Continue(next))...); err != nil {
			return err
		}
		for i := range list.Items {
			if err := f(&list.Items[i]); err != nil {
				return err
			}
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

func lineOf(crt *cmapi.Certificate) listLine {
	ref := crt.Spec.IssuerRef
	l := listLine{
		Namespace:   crt.Namespace,
		Name:        crt.Name,
		Ready:       "Unknown",
		NotAfter:    crt.Status.NotAfter,
		RenewalTime: crt.Status.RenewalTime,
		Issuer:      ref.KindOrDefault() + "/" + ref.Name,
		SecretName:  crt.Spec.SecretName,
	}
	if group := ref.GroupOrDefault(); group != cmmeta.DefaultIssuerGroup {
		l.Issuer = ref.KindOrDefault() + "." + group + "/" + ref.Name
	}
	if n := crt.Status.FailedIssuanceAttempts; n != nil {
		l.Attempts = *n
	}
	ready := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
	if ready != nil {
		l.Ready = string(ready.Status)
		if ready.Status != cmmeta.ConditionTrue {
			l.Reason, l.Message = ready.Reason, ready.Message
		}
	}
	if issuing := cmapi.GetCertificateCondition(
		&crt.Status,
		cmapi.CertificateConditionIssuing,
	); issuing != nil &&
		issuing.Status == cmmeta.ConditionFalse {
		l.Reason, l.Message = issuing.Reason, issuing.Message
	}
	return l
}

func (p *Program) printList(lines []listLine, all bool) error {
	slices.SortStableFunc(lines, func(a, b listLine) int {
		rank := func(l listLine) int {
			if l.Ready != "True" {
				return 0
			}
			return 1
		}
		expiry := func(l listLine) int64 {
			if l.NotAfter == nil {
				return 0
			}
			return l.NotAfter.Unix()
		}
		return cmp.Or(
			rank(a)-rank(b),
			cmp.Compare(expiry(a), expiry(b)),
			strings.Compare(a.Namespace, b.Namespace),
			strings.Compare(a.Name, b.Name),
		)
	})
	notReady := 0
	for _, l := range lines {
		if l.Ready != "True" {
			notReady++
		}
	}
	switch {
	case p.json():
		if err := p.printJSON(lines); err != nil {
			return err
		}
	case len(lines) == 0:
		fmt.Fprintln(p.Err, "no Certificates found")
	default:
		p.printLines(lines, all)
	}
	if notReady > 0 {
		return &exitError{code: ExitNotReady}
	}
	return nil
}

func (p *Program) printLines(lines []listLine, all bool) {
	now := p.Clock.Now()
	w := p.table()
	head := "CERTIFICATE\tREADY\tEXPIRES\tRENEWAL\tISSUER\tWHAT IS WRONG"
	if all {
		head = "NAMESPACE\t" + head
	}
	fmt.Fprintln(w, head)
	when := func(t *metav1.Time) string {
		if t == nil {
			return "-"
		}
		return explain.Until(t.Time, now)
	}
	for _, l := range lines {
		wrong := l.Reason
		if l.Attempts > 0 {
			wrong += fmt.Sprintf(" (failed %d times)", l.Attempts)
		}
		if all {
			fmt.Fprintf(w, "%s\t", l.Namespace)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Ready, when(l.NotAfter), when(l.RenewalTime), l.Issuer, wrong)
	}
	w.Flush()
}
