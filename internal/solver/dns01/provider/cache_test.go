package provider

import (
	"errors"
	"fmt"
	"testing"
)

func TestProvidersAreOpenedOnceForTheSameSettings(t *testing.T) {
	var c cache[digest, *int]
	opened := 0
	open := func() (*int, error) {
		opened++
		return new(int), nil
	}
	first, err := openOnce(&c, "a", []string{"x"}, open)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		service string
		setting string
		same    bool
	}{{"a", "x", true}, {"a", "y", false}, {"b", "x", false}} {
		got, err := openOnce(&c, test.service, []string{test.setting}, open)
		if err != nil || (got == first) != test.same {
			t.Errorf("%+v: %v, %v", test, got == first, err)
		}
	}
	if opened != 3 {
		t.Errorf("%d are opened", opened)
	}
	if _, err := openOnce(&c, "c", nil, func() (*int, error) { return nil, errors.New("no") }); err == nil {
		t.Error("the error is lost")
	}
	if _, err := openOnce(&c, "c", nil, open); err != nil {
		t.Errorf("an error stays: %v", err)
	}
}

func TestACacheKeepsWhatIsUsed(t *testing.T) {
	var c cache[string, int]
	const size = 10
	for i := range 3 * size {
		c.add(fmt.Sprint(i), i, size)
		if _, found := c.get("0"); !found {
			t.Fatalf("what is used is gone after %d others", i)
		}
	}
	if n := c.entries.Len(); n != size {
		t.Errorf("it has %d entries", n)
	}
	if got := c.addFirst("0", 7, size); got != 0 {
		t.Errorf("the first value is replaced by %d", got)
	}
	if c.remove("0"); c.addFirst("0", 7, size) != 7 {
		t.Error("a removed value stays")
	}
}
