package memory

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestARecordGoesWithItsObject(t *testing.T) {
	var r Records[Timestamp]
	first := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", UID: "1"}}
	second := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", UID: "2"}}
	r.Of(first).Start(time.Unix(1, 0))
	if r.Of(first).IsZero() {
		t.Error("a record is forgotten between two passes")
	}
	if !r.Of(second).IsZero() {
		t.Error("another object of the same name has the record of the first")
	}
	r.Drop(client.ObjectKeyFromObject(second))
	if n := r.Len(); n != 0 {
		t.Errorf("%d records stay", n)
	}
}

func TestATimestamp(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var began Timestamp
	if began.Start(at(5)) != at(5) || began.Start(at(6)) != at(5) {
		t.Errorf("it began at %s", began)
	}
	began.KeepEarlier(at(7))
	began.KeepEarlier(time.Time{})
	if began.Time != at(5) {
		t.Errorf("a later time, or none, moved it to %s", began)
	}
	if began.KeepEarlier(at(3)); began.Time != at(3) {
		t.Errorf("an earlier time left it at %s", began)
	}
	if began.Clear(); !began.IsZero() {
		t.Errorf("it has not ended: %s", began)
	}
	if began.KeepEarlier(at(4)); began.Time != at(4) {
		t.Errorf("the first time is %s", began)
	}
}
