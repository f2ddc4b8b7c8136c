package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// firstOf asks servers in their order until one answers. It asks the next one when one fails, or
// has not answered within wait. If all fail, the error is a response code of a server, or else the
// first error.
func firstOf(
	ctx context.Context,
	addresses []string,
	wait time.Duration,
	ask func(ctx context.Context, address string) (*dns.Msg, error),
) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		answer *dns.Msg
		err    error
	}
	replies := make(chan reply, len(addresses))
	next := time.NewTimer(0)
	defer next.Stop()
	var failed error
	code := RCode(0)
	for asked, heard := 0, 0; heard < len(addresses); {
		select {
		case <-next.C:
			address := addresses[asked]
			go func() {
				answer, err := ask(ctx, address)
				replies <- reply{answer, err}
			}()
			if asked++; asked < len(addresses) {
				next.Reset(wait)
			}
		case r := <-replies:
			if r.err == nil {
				return r.answer, nil
			}
			if heard++; failed == nil || errors.As(r.err, &code) && !errors.As(failed, &code) {
				failed = r.err
			}
			if asked < len(addresses) {
				next.Reset(0)
			}
		}
	}
	return nil, failed
}

// ParseNameservers adds default ports to DNS servers, which are host:port, host, or https URLs.
func ParseNameservers(servers []string) ([]string, error) {
	var list []string
	for _, s := range servers {
		if strings.Contains(s, "://") {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, "{}") {
				return nil, fmt.Errorf(
					"the DNS server %q must be host:port, or a URL such as https://dns.example.com/dns-query",
					withoutCredentials(s),
				)
			}
			if u.User != nil {
				return nil, fmt.Errorf("the URL of the DNS server %q must not have credentials", withoutCredentials(s))
			}
		} else {
			host, port, err := net.SplitHostPort(s)
			if err != nil {
				host, port = strings.Trim(s, "[]"), "53"
			}
			if host == "" || port == "" {
				return nil, fmt.Errorf("the DNS server %q must be host:port, or a URL such as https://dns.example.com/dns-query", s)
			}
			s = net.JoinHostPort(host, port)
		}
		list = append(list, s)
	}
	return list, nil
}

// withoutCredentials returns a URL without its credentials.
func withoutCredentials(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	return scheme + "://" + rest[strings.LastIndex(rest, "@")+1:]
}

func (r *Resolver) nameservers() ([]string, error) {
	list, err := ParseNameservers(r.Nameservers)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		return list, nil
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(config.Servers) == 0 {
		return nil, errors.New(
			"this machine has no name servers in /etc/resolv.conf: give some with --dns01-recursive-nameservers",
		)
	}
	for _, s := range config.Servers {
		list = append(list, net.JoinHostPort(s, config.Port))
	}
	return list, nil
}

// recursive asks the recursive servers, in their order.
func (r *Resolver) recursive(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	list, err := r.nameservers()
	if err != nil {
		return nil, err
	}
	return firstOf(ctx, list, patience, func(ctx context.Context, address string) (*dns.Msg, error) {
		return r.exchange(ctx, address, name, kind, true)
	})
}
