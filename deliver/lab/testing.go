package lab

// TB is the part of testing.TB that Test needs.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Test makes an Internet over real sockets that is closed at the end of a test. Mistakes in its setup, a zone that
// does not parse for one, fail the test.
func Test(t TB) *Internet {
	t.Helper()
	return testWith(t, Options{})
}

// TestInMemory is Test with connections in memory, for use inside a testing/synctest bubble: t must be the bubble's own.
func TestInMemory(t TB) *Internet {
	t.Helper()
	return testWith(t, Options{InMemory: true})
}

func testWith(t TB, opts Options) *Internet {
	t.Helper()
	n, err := New(opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	n.fail = func(err error) { t.Errorf("%v", err) }
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// mistake reports an error of the setup to the test, if there is one, and gives it back.
func (n *Internet) mistake(err error) error {
	if n.fail != nil {
		n.fail(err)
	}
	return err
}
