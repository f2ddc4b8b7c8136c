package lifecycle

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

func TestPasswordsThatMayNotOpenAKeystoreAreWarnedAboutOnce(t *testing.T) {
	for name, test := range map[string]passwordCase{
		"a password":             {"changeit", "changeit", ""},
		"a line break, JKS":      {"changeit\n", "", `entry "password" of Secret "jks" ends with a line break`},
		"a line break, PKCS #12": {"", "changeit\r\n", `entry "password" of Secret "pkcs12" ends with a line break`},
		"beyond ASCII, JKS":      {"pässwörd", "", ""},
		"beyond ASCII, PKCS #12": {
			"", "pässwörd", `entry "password" of Secret "pkcs12" has characters beyond printable ASCII: Java does not open`},
		"a line break within is no mishap": {"change\nit", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.check(t)
		})
	}
}

// passwordCase is the passwords of the keystores, and what an event says of one.
type passwordCase struct{ jks, pkcs12, says string }

func (test passwordCase) check(t *testing.T) {
	s := newScene(t)
	s.Certificate.Spec.Keystores = &cmapi.CertificateKeystores{}
	if test.jks != "" {
		s.Certificate.Spec.Keystores.JKS = &cmapi.JKSKeystore{Create: true, Password: ptr.To("x")}
		s.JKSPassword = Password{Value: test.jks, Source: `entry "password" of Secret "jks"`}
	}
	if test.pkcs12 != "" {
		s.Certificate.Spec.Keystores.PKCS12 = &cmapi.PKCS12Keystore{Create: true, Password: ptr.To("x")}
		s.PKCS12Password = Password{Value: test.pkcs12, Source: `entry "password" of Secret "pkcs12"`}
	}
	told := func() (n int) {
		d := Decide(s.Observation)
		for _, e := range d.Events {
			if e.Reason == reasonPassword {
				n++
				if test.says == "" || !strings.Contains(e.Message, test.says) {
					t.Errorf("it says %q", e.Message)
				}
				if strings.Contains(e.Message, "changeit") {
					t.Error("it shows the password")
				}
			}
		}
		s.carryOut(d)
		return n
	}
	s.requested().signed()
	want := 0
	if test.says != "" {
		want = 1
	}
	if n := told(); n != want {
		t.Errorf("it is reported %d times", n)
	}
	if n := told(); n != 0 {
		t.Errorf("it is reported again: %s", fmt.Sprint(n))
	}
}
