package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// A screen shows lines and, below them, a table of all certificates. On a terminal, the table stays
// at the bottom and its times count down; in a file, it is written again after each change.
type screen struct {
	out      io.Writer
	table    bool
	terminal bool

	mu           sync.Mutex
	certificates map[string]*cmapi.Certificate
	drawn        int  // lines of the table at the bottom of the terminal
	changed      bool // since the table was written
	stop         chan struct{}
	stopped      chan struct{}
}

// Intervals for writing the table. On a terminal its times count down; a file gets it only after
// changes.
const (
	terminalInterval = time.Second
	fileInterval     = 2 * time.Second
)

func newScreen(out io.Writer, table, terminal bool) *screen {
	s := &screen{
		out:          out,
		table:        table,
		terminal:     terminal,
		certificates: map[string]*cmapi.Certificate{},
		stop:         make(chan struct{}),
		stopped:      make(chan struct{}),
	}
	interval := fileInterval
	if terminal {
		interval = terminalInterval
	}
	go func() {
		defer close(s.stopped)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ticker.C:
				s.refresh()
			}
		}
	}()
	return s
}

func (s *screen) close() {
	close(s.stop)
	<-s.stopped
}

// say writes a line with the time.
func (s *screen) say(line string) { s.sayAll([]string{line}) }

func (s *screen) sayAll(lines []string) {
	if len(lines) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	for _, line := range lines {
		fmt.Fprintf(s.out, "%s %s\n", time.Now().Format("15:04:05"), oneLine(line))
	}
	if s.terminal {
		s.draw()
	}
}

func (s *screen) put(crt *cmapi.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificates[crt.Namespace+"/"+crt.Name] = crt
	s.changed = true
}

func (s *screen) remove(crt *cmapi.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.certificates, crt.Namespace+"/"+crt.Name)
	s.changed = true
}

func (s *screen) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.table || (!s.terminal && !s.changed) {
		return
	}
	s.changed = false
	s.erase()
	s.draw()
}

// erase removes the table from the bottom of the terminal.
func (s *screen) erase() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) draw() {
	if !s.table || len(s.certificates) == 0 {
		return
	}
	text := tableOf(s.certificates, time.Now())
	fmt.Fprintf(s.out, "\n%s\n", text)
	if s.terminal {
		s.drawn = strings.Count(text, "\n") + 2
	}
}

func tableOf(certificates map[string]*cmapi.Certificate, now time.Time) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tCERTIFICATE\tREADY\tREVISION\tEXPIRES IN\tRENEWS IN\tISSUER\t")
	for _, key := range slices.Sorted(maps.Keys(certificates)) {
		crt := certificates[key]
		ready := "False"
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
		switch {
		case c == nil:
			ready = "-"
		case c.Status == cmmeta.ConditionTrue:
			ready = "True"
		default:
			ready = "False (" + c.Reason + ")"
		}
		expires, renews, n := "-", "-", "-"
		if t := crt.Status.NotAfter; t != nil {
			expires = left(t.Time, now)
		}
		if t := crt.Status.RenewalTime; t != nil {
			renews = left(t.Time, now)
		}
		if r := revision(crt); r > 0 {
			n = fmt.Sprint(r)
		}
		fmt.Fprintf(
			w,
			"%s\t%s\t%s\t%s\t%s\t%s\t%s %s\t\n",
			crt.Namespace,
			crt.Name,
			ready,
			n,
			expires,
			renews,
			crt.Spec.IssuerRef.KindOrDefault(),
			crt.Spec.IssuerRef.Name,
		)
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
