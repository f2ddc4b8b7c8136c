package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
)

// watchCertificates writes changes of Certificates to the screen until ctx ends.
func watchCertificates(ctx context.Context, cfg *rest.Config, s *screen) error {
	c, err := cache.New(
		cfg,
		cache.Options{Scheme: controller.Scheme(), DefaultTransform: cache.TransformStripManagedFields()},
	)
	if err != nil {
		return fmt.Errorf("watch Certificates: %w", err)
	}
	informer, err := c.GetInformer(ctx, &cmapi.Certificate{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch Certificates: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			crt := o.(*cmapi.Certificate)
			if !initial { // objects from before the start are in the table and are not news
				s.sayAll(narrate(nil, crt))
			}
			s.put(crt)
		},
		UpdateFunc: func(was, is any) {
			s.sayAll(narrate(was.(*cmapi.Certificate), is.(*cmapi.Certificate)))
			s.put(is.(*cmapi.Certificate))
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if crt, ok := o.(*cmapi.Certificate); ok {
				s.say(nameOf(crt) + " deleted; its Secret stays")
				s.remove(crt)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch Certificates: %w", err)
	}
	return c.Start(ctx)
}

func nameOf(crt *cmapi.Certificate) string { return "certificate " + crt.Namespace + "/" + crt.Name }

// narrate returns lines that describe the change of a Certificate between two states. was is nil if
// the Certificate is new.
func narrate(was, is *cmapi.Certificate) []string {
	if was == nil {
		was = &cmapi.Certificate{}
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, nameOf(is)+" "+fmt.Sprintf(format, args...)) }

	if n := revision(is); n > revision(was) && is.Status.NotAfter != nil {
		verb := "issued"
		if n > 1 {
			verb = fmt.Sprintf("renewed, revision %d", n)
		}
		text := "valid until " + clock(is.Status.NotAfter.Time)
		if t := is.Status.RenewalTime; t != nil {
			text += ", next renewal at " + clock(t.Time)
		}
		say("%s: %s", verb, text)
	}
	before := cmapi.GetCertificateCondition(&was.Status, cmapi.CertificateConditionIssuing)
	if now := cmapi.GetCertificateCondition(
		&is.Status,
		cmapi.CertificateConditionIssuing,
	); now != nil &&
		(before == nil || before.Status != now.Status || before.Message != now.Message) {
		if now.Status == cmmeta.ConditionTrue {
			say("in work: %s", now.Message)
		} else {
			say("failed: %s", now.Message)
		}
	}
	before = cmapi.GetCertificateCondition(&was.Status, cmapi.CertificateConditionReady)
	now := cmapi.GetCertificateCondition(&is.Status, cmapi.CertificateConditionReady)
	if now != nil && now.Status == cmmeta.ConditionFalse && before != nil &&
		(before.Status != now.Status || before.Reason != now.Reason) {
		say("not ready: %s", now.Message)
	}
	return lines
}

func revision(crt *cmapi.Certificate) int {
	if crt.Status.Revision == nil {
		return 0
	}
	return *crt.Status.Revision
}

// clock formats a time in the local zone, without the date if it is within a day.
func clock(t time.Time) string {
	t = t.Local()
	if d := time.Until(t); d > -12*time.Hour && d < 12*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// left formats the time until t in one or two units, such as 59d or 2m30s.
func left(t, now time.Time) string {
	d := t.Sub(now).Round(time.Second)
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%s%dd", sign, d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%s%dh%dm", sign, d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%s%dm%ds", sign, d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%s%ds", sign, d/time.Second)
}

// oneLine replaces line breaks, so that the text fits on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
