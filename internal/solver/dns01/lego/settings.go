package lego

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-acme/lego/v5/challenge"
)

// kind describes a provider of lego.
type kind struct {
	name     string
	settings []setting
	// stateful: CleanUp needs state that Present of the same instance kept.
	stateful bool
	// exclusive: a name can have only one value, or CleanUp removes others, too.
	exclusive bool
	// wide: all names of an account's domain share one value.
	wide bool
	// wholeZone: a change reads all records of the zone and writes them back.
	wholeZone bool
	// byDomain: the name of the record follows from the name in the certificate, and CNAMEs are
	// ignored.
	byDomain bool
	// local: only the owner of the machine may use it.
	local bool
	// hosts are the hosts of the service in lego's source, which apply if no setting names another.
	hosts []string
	make  func(values, *http.Client) (challenge.Provider, error)
}

// setting is a field of a provider's configuration.
type setting struct {
	name   string
	form   form
	secret bool
	// needed: lego's configuration from the environment requires this setting.
	needed bool
	def    string
	// in is the domain that the address must be in. If empty, any domain is valid.
	in string
}

// form is the format of a setting.
type form int

const (
	text form = iota
	number
	flag
	address
	pairs // name:value,name:value
	lists // name:id:id,name:id
)

const (
	// maxConfig bounds the settings in an issuer, and maxSetting bounds a single setting.
	maxConfig, maxSetting = 64 << 10, 32 << 10
	docs                  = "docs/dns-providers.md"
)

// find returns the description of a provider.
func find(name string) (*kind, error) {
	for i := range own {
		if own[i].name == name {
			return &own[i], nil
		}
	}
	if i, ok := slices.BinarySearchFunc(
		kinds[:],
		name,
		func(k kind, name string) int { return strings.Compare(k.name, name) },
	); ok {
		return &kinds[i], nil
	}
	if field := elsewhere[name]; field != "" {
		return nil, fmt.Errorf("dns01.provider.name: for %q use dns01.%s", name, field)
	}
	if why := closed[name]; why != "" {
		return nil, fmt.Errorf("dns01.provider.name: %q cannot be used, because %s: use a webhook for it", name, why)
	}
	return nil, fmt.Errorf("dns01.provider.name: there is no provider %q: %s lists all", name, docs)
}

func (k *kind) setting(name string) *setting {
	for i := range k.settings {
		if k.settings[i].name == name {
			return &k.settings[i]
		}
	}
	return nil
}

// known lists the settings for a message.
func (k *kind) known() string {
	var all []string
	for _, s := range k.settings {
		if s.secret {
			all = append(all, s.name+" (in the Secret)")
		} else {
			all = append(all, s.name)
		}
	}
	if len(all) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(all, ", ")
}

// values are the settings of a provider by name. Their formats have been checked.
type values map[string]string

// read reads the settings from the issuer, a JSON object, and from a Secret. Messages name the
// field and never contain a secret.
func (k *kind) read(config []byte, secret map[string][]byte) (values, error) {
	v := values{}
	set := func(from, name, value string) error {
		s := k.setting(name)
		switch {
		case s == nil:
			return fmt.Errorf("%s: provider %s has no setting %q: %s", from, k.name, name, k.known())
		case len(value) > maxSetting:
			return fmt.Errorf("%s: %s is longer than %d bytes", from, name, maxSetting)
		}
		if _, twice := v[name]; twice {
			return fmt.Errorf("%s: %s is in dns01.provider.config, too: remove one of them", from, name)
		}
		if err := s.check(value); err != nil {
			return fmt.Errorf("%s: %s %w", from, name, err)
		}
		v[name] = value
		return nil
	}
	const field = "dns01.provider.config"
	if len(config) > maxConfig {
		return nil, fmt.Errorf("%s is longer than %d bytes", field, maxConfig)
	}
	var given map[string]any
	if len(config) > 0 {
		d := json.NewDecoder(bytes.NewReader(config))
		d.UseNumber()
		if err := d.Decode(&given); err != nil {
			return nil, fmt.Errorf("%s is no object of settings: %w", field, err)
		}
	}
	for _, name := range sorted(given) {
		var value string
		switch x := given[name].(type) {
		case string:
			value = x
		case json.Number:
			value = x.String()
		case bool:
			value = strconv.FormatBool(x)
		default:
			return nil, fmt.Errorf("%s: %s must be a string, a number, true or false", field, name)
		}
		if s := k.setting(name); s != nil && s.secret {
			return nil, fmt.Errorf(
				"%s: %s is secret: put it into a Secret, as the entry %s, and name that in dns01.provider.secretRef",
				field,
				name,
				name,
			)
		}
		if err := set(field, name, value); err != nil {
			return nil, err
		}
	}
	for _, name := range sorted(secret) {
		if err := set("the Secret of dns01.provider.secretRef", name, strings.TrimSpace(string(secret[name]))); err != nil {
			return nil, err
		}
	}
	for _, s := range k.settings {
		if _, found := v[s.name]; !found && s.def != "" {
			v[s.name] = s.def
		}
	}
	return v, nil
}

// missing returns an error if a needed setting is missing and no Secret is named.
func (k *kind) missing(v values) error {
	for _, s := range k.settings {
		switch {
		case !s.needed || v[s.name] != "":
		case s.secret:
			return fmt.Errorf(
				"dns01.provider.secretRef: provider %s needs %s: put it into a Secret, as the entry %s, and name that",
				k.name,
				s.name,
				s.name,
			)
		default:
			return fmt.Errorf("dns01.provider.config: provider %s needs %s", k.name, s.name)
		}
	}
	return nil
}

// check returns an error if the format of a value is wrong.
func (s *setting) check(value string) error {
	switch s.form {
	case number:
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return errors.New("must be a number, 0 or more")
		}
	case flag:
		if value != "true" && value != "false" {
			return errors.New("must be true or false")
		}
	case address:
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return errors.New("must be a URL that begins with http:// or https://")
		}
	case pairs, lists:
		if _, err := split(value); err != nil {
			return err
		}
	}
	if s.in != "" {
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "https" || !strings.HasSuffix(u.Hostname(), s.in) {
			return fmt.Errorf("must be a URL that begins with https://, of a host in %s", strings.TrimPrefix(s.in, "."))
		}
	}
	return nil
}

// split parses name:value,name:value. A line break separates like a comma.
func split(value string) (map[string]string, error) {
	all := map[string]string{}
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '\n' }) {
		name, rest, found := strings.Cut(strings.TrimSpace(part), ":")
		if !found || name == "" || rest == "" {
			return nil, errors.New("must have the form name:value,name:value")
		}
		all[name] = rest
	}
	return all, nil
}

func (v values) text(name string) string { return v[name] }

func (v values) number(name string) int {
	n, _ := strconv.Atoi(v[name]) // read has checked it
	return n
}

func (v values) flag(name string) bool { return v[name] == "true" }

func (v values) address(name string) *url.URL {
	if v[name] == "" {
		return nil
	}
	u, _ := url.Parse(v[name])
	return u
}

func (v values) pairs(name string) map[string]string {
	all, _ := split(v[name])
	return all
}

// sequences makes the lists of IDs that some providers need.
func sequences[ID, S any](v values, name string, id func(string) ID, make func(...ID) S) map[string]S {
	all := map[string]S{}
	for name, list := range v.pairs(name) {
		var ids []ID
		for part := range strings.SplitSeq(list, ":") {
			ids = append(ids, id(part))
		}
		all[name] = make(ids...)
	}
	return all
}

func asText(s string) string { return s }

func asNumber(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64) // an invalid ID is zero
	return n
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
