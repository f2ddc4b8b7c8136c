package test

import (
	_ "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	_ "github.com/letsencrypt/pebble/v2/wfe"
	_ "github.com/mholt/acmez/v3/acme"
	_ "github.com/miekg/dns"
)
