package disk

import "sync"

// A folderSync makes the names in a folder durable. Callers that come while a sync is under way share the next one. The zero
// value is ready.
type folderSync struct {
	turn sync.Mutex // held while a sync is under way

	mu   sync.Mutex
	next *folderRound // guarded by mu: has not begun; nil where nobody waits
}

// A folderRound is one sync and all who wait for it.
type folderRound struct {
	done chan struct{} // closed when it has ended
	err  error         // set before done is closed
}

// sync returns when a call of do has ended that began after sync was called, with do's error.
func (f *folderSync) sync(do func() error) error {
	f.mu.Lock()
	if r := f.next; r != nil {
		f.mu.Unlock()
		<-r.done
		return r.err
	}
	r := &folderRound{done: make(chan struct{})}
	f.next = r
	f.mu.Unlock()

	f.turn.Lock()
	f.mu.Lock()
	f.next = nil // who comes from here on has names that this sync may miss
	f.mu.Unlock()
	r.err = do()
	f.turn.Unlock()
	close(r.done)
	return r.err
}
