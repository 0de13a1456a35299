package main

import "sync"

// kept is an engine on a store. Its schedule is the simplest there is: what came first is due first. In memory are the
// numbers of what came in this life; what an earlier life left is read from the store page by page.
type kept struct {
	store store
	do    func(change) error
	stop  func()

	mu    sync.Mutex
	came  []uint64 // guarded by mu: oldest first
	left  []uint64 // guarded by mu: a page of what an earlier life left
	seen  uint64   // guarded by mu: the last number of that page
	until uint64   // the last number that an earlier life left
}

// page is how many numbers are read at once.
const page = 1000

// openGrouped makes an engine of a store that has one writer at a time.
func openGrouped(open func(dir string) (store, error)) func(string) (engine, error) {
	return func(dir string) (engine, error) {
		s, err := open(dir)
		if err != nil {
			return nil, err
		}
		g := newGroup(s.commit)
		return newKept(s, g.do, g.close)
	}
}

// openShared makes an engine of a store whose commits may be concurrent and share fsyncs by themselves.
func openShared(open func(dir string) (store, error)) func(string) (engine, error) {
	return func(dir string) (engine, error) {
		s, err := open(dir)
		if err != nil {
			return nil, err
		}
		return newKept(s, func(c change) error { return s.commit([]change{c}) }, func() {})
	}
}

func newKept(s store, do func(change) error, stop func()) (engine, error) {
	last, err := s.last()
	if err != nil {
		stop()
		s.close()
		return nil, err
	}
	return &kept{store: s, do: do, stop: stop, until: last}, nil
}

func (k *kept) enqueue(m mail) error {
	if err := k.do(change{seq: m.seq, meta: m.meta, body: m.body}); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.came = append(k.came, m.seq)
	return nil
}

func (k *kept) take(most int) ([]job, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.left) == 0 && k.seen < k.until {
		page, err := k.store.scan(k.seen, page)
		if err != nil {
			return nil, err
		}
		k.seen = k.until
		for _, e := range page {
			if e.seq <= k.until { // what came since is in came
				k.left = append(k.left, e.seq)
				k.seen = e.seq
			}
		}
	}
	from := &k.left
	if len(k.left) == 0 {
		from = &k.came
	}
	n := min(most, len(*from))
	jobs := make([]job, n)
	for i, seq := range (*from)[:n] {
		jobs[i].seq = seq
	}
	*from = (*from)[n:]
	return jobs, nil
}

func (k *kept) read(j job) (meta, body []byte, err error) { return k.store.read(j.seq) }

func (k *kept) settle(j job, record []byte) error { return k.do(change{seq: j.seq, record: record}) }

func (k *kept) close() error {
	k.stop()
	return k.store.close()
}
