package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
)

const readyTimeout = 2 * time.Minute

// process is a running controller.
type process struct {
	cmd  *exec.Cmd
	done chan error
}

// start starts the controller and waits until its caches are filled.
func (b *bench) start(ctx context.Context, flags ...string) (*process, error) {
	kubeconfig, err := b.kubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(b.dir, "controller.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	const health = "127.0.0.1:19403"
	cmd := exec.Command(
		b.binary,
		append([]string{
			"controller",
			"--kubeconfig",
			kubeconfig,
			"--cluster-resource-namespace",
			deploy.Namespace,
			"--leader-elect=false",
			"--metrics-listen-address",
			"127.0.0.1:19402",
			"--health-listen-address",
			health,
		}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	deadline := time.Now().Add(readyTimeout)
	for {
		response, err := http.Get("http://" + health + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		select {
		case err := <-p.done:
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the controller ended: %v\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return nil, errors.New("the controller does not become ready")
		}
	}
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-p.done
}

// cpu is the CPU time that the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name of the command, in parentheses, may contain any characters.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, i := range []int{11, 12} { // utime and stime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is the present and the largest resident size, in MiB.
func (p *process) memory() (now, peak float64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib / 1024
		case "VmHWM:":
			peak = kib / 1024
		}
	}
	return now, peak, nil
}

// kubeconfig creates a kubeconfig for the controller's ServiceAccount.
func (b *bench) kubeconfig(ctx context.Context) (string, error) {
	admin := b.plane.AdminConfig()
	k, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return "", err
	}
	seconds := int64((4 * time.Hour).Seconds())
	token, err := k.CoreV1().ServiceAccounts(deploy.Namespace).CreateToken(ctx, deploy.ServiceAccount,
		&authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
		}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos["bench"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	config.CurrentContext = "bench"
	path := filepath.Join(b.dir, "kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

// requests are counts of API requests by "verb resource", and those of them that ended in a
// conflict.
type requests struct {
	counts    map[string]float64
	conflicts float64
}

func (b *bench) requests(ctx context.Context) (requests, error) {
	k, err := kubernetes.NewForConfig(b.plane.AdminConfig())
	if err != nil {
		return requests{}, err
	}
	text, err := k.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return requests{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		return requests{}, err
	}
	r := requests{counts: map[string]float64{}}
	for _, m := range families["apiserver_request_total"].GetMetric() {
		label := map[string]string{}
		for _, l := range m.GetLabel() {
			label[l.GetName()] = l.GetValue()
		}
		resource := label["resource"]
		if s := label["subresource"]; s != "" {
			resource += "/" + s
		}
		r.counts[label["verb"]+" "+resource] += value(m)
		if label["code"] == "409" {
			r.conflicts += value(m)
		}
	}
	return r, nil
}

func value(m *dto.Metric) float64 { return m.GetCounter().GetValue() }

// since subtracts earlier counts.
func (r requests) since(before requests) requests {
	d := requests{counts: map[string]float64{}, conflicts: r.conflicts - before.conflicts}
	for k, v := range r.counts {
		if n := v - before.counts[k]; n > 0 {
			d.counts[k] = n
		}
	}
	return d
}

var writeVerbs = []string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}

// ofCertificates are the resources that an issuance writes. Writes of leases and tokens are not
// part of it.
var ofCertificates = []string{
	"certificates",
	"certificates/status",
	"certificaterequests",
	"certificaterequests/status",
	"secrets",
	"events",
	"issuers/status",
	"clusterissuers/status",
}

func (r requests) writes() (total float64, lines []string) {
	var keys []string
	for k := range r.counts {
		verb, resource, _ := strings.Cut(k, " ")
		if slices.Contains(writeVerbs, verb) && slices.Contains(ofCertificates, resource) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		total += r.counts[k]
		lines = append(lines, fmt.Sprintf("%-40s %8.0f", k, r.counts[k]))
	}
	return total, lines
}

// result is the measurement of a burst of certificates.
type result struct {
	took       []time.Duration
	all        time.Duration
	cpu        time.Duration
	now, peak  float64
	requests   requests
	loadWrites float64
}

// burst measures n certificates of the issuer that are created at once.
func (b *bench) burst(ctx context.Context, issuer cmmeta.IssuerReference, namespace string, n int) (*result, error) {
	p, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	// The issuer becomes ready before the load begins.
	if err := b.quiet(ctx); err != nil {
		return nil, err
	}
	before, err := b.requests(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := p.cpu()
	if err != nil {
		return nil, err
	}
	r := &result{loadWrites: float64(n)}
	if issuer == elsewhere {
		r.loadWrites *= 2 // the signer is part of the load, too
	}
	if r.took, r.all, err = b.issue(ctx, issuer, namespace, n); err != nil {
		return nil, err
	}
	// Events are written in the background: count those, too.
	if err := b.quiet(ctx); err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	r.cpu = after - cpu
	if r.now, r.peak, err = p.memory(); err != nil {
		return nil, err
	}
	counts, err := b.requests(ctx)
	if err != nil {
		return nil, err
	}
	r.requests = counts.since(before)
	return r, nil
}

// quiet waits until there were no writes for certificates for a second.
func (b *bench) quiet(ctx context.Context) error {
	last := -1.0
	for {
		r, err := b.requests(ctx)
		if err != nil {
			return err
		}
		total, _ := r.writes()
		if total == last {
			return nil
		}
		last = total
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// print prints the result, and its part of the ceiling if that is known.
func (r *result) print(ceiling float64) {
	n := float64(len(r.took))
	rate := n / r.all.Seconds()
	total, lines := r.requests.writes()
	total -= r.loadWrites
	if ceiling > 0 {
		fmt.Printf("  ceiling, the writes alone             %8.1f certificates/s\n", ceiling)
		fmt.Printf(
			"  until Ready                           %8.1f certificates/s   %.0f %% of the ceiling\n",
			rate,
			100*rate/ceiling,
		)
	} else {
		fmt.Printf("  until Ready                           %8.1f certificates/s\n", rate)
	}
	fmt.Printf(
		"  from create to Ready                  %8.0f ms p50  %.0f ms p99\n",
		quantile(r.took, .5).Seconds()*1000,
		quantile(r.took, .99).Seconds()*1000,
	)
	fmt.Printf("  CPU of the controller                 %8.2f ms a certificate\n", r.cpu.Seconds()*1000/n)
	fmt.Printf("  memory of the controller              %8.0f MiB at most, %.0f MiB at the end\n", r.peak, r.now)
	fmt.Printf("  write requests, without the load's    %8.2f a certificate\n", total/n)
	fmt.Printf("  conflicts (409)                       %8.0f\n", r.requests.conflicts)
	for _, l := range lines {
		fmt.Printf("    %s\n", l)
	}
	fmt.Println()
}

// fleetRestart fills the cluster, restarts the controller and measures its work.
func (b *bench) fleetRestart(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	if _, _, err := b.issue(ctx, inProcess, "fleet", b.fleet); err != nil {
		return err
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}
	now, peak, err := p.memory()
	if err != nil {
		return err
	}
	fmt.Printf("%d certificates\n\n", b.fleet+2*b.certificates)
	fmt.Printf("  memory of the controller              %8.0f MiB at most, %.0f MiB at the end\n", peak, now)
	if err := p.stop(); err != nil {
		return err
	}
	before, err := b.requests(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if p, err = b.start(ctx); err != nil {
		return err
	}
	defer p.stop()
	steady, err := b.steady(ctx, p, began)
	if err != nil {
		return err
	}
	cpu, err := p.cpu()
	if err != nil {
		return err
	}
	after, err := b.requests(ctx)
	if err != nil {
		return err
	}
	now, peak, err = p.memory()
	if err != nil {
		return err
	}
	total, lines := after.since(before).writes()
	fmt.Printf("  after a restart: steady after         %8.1f s, with %.1f s of CPU\n", steady.Seconds(), cpu.Seconds())
	fmt.Printf("  after a restart: memory               %8.0f MiB at most, %.0f MiB at the end\n", peak, now)
	fmt.Printf("  after a restart: write requests       %8.0f\n", total)
	for _, l := range lines {
		fmt.Printf("    %s\n", l)
	}
	return nil
}

// steady waits until the controller has used almost no CPU for two seconds, and returns the start
// of these two seconds.
func (b *bench) steady(ctx context.Context, p *process, began time.Time) (time.Duration, error) {
	last, err := p.cpu()
	if err != nil {
		return 0, err
	}
	since := time.Now()
	for time.Since(since) < 2*time.Second {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
		now, err := p.cpu()
		if err != nil {
			return 0, err
		}
		if now-last > 20*time.Millisecond {
			since = time.Now()
		}
		last = now
	}
	return since.Sub(began), nil
}
