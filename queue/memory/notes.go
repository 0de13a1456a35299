package memory

import (
	"container/heap"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A Note is a [queue.Note] as a backend keeps it.
type Note struct {
	queue.Note
	For time.Duration `json:"for,omitempty"` // how long before Until it was made: bounds Until after a clock jump

	Place any `json:"-"` // where the backend keeps its record
}

// Size is about how much a note takes in a record.
func (n *Note) Size() int64 { return int64(len(n.Kind)+len(n.Key)+len(n.Value)) + noteOverhead }

const noteOverhead = 100

// SizeOf is that of several.
func SizeOf(notes []Note) (size int64) {
	for i := range notes {
		size += notes[i].Size()
	}
	return size
}

// KeyOf is the note that remembers the key of a message: none or one.
func KeyOf(m *Message) []Note {
	if m.Envelope.Key == "" {
		return nil
	}
	n := queue.Note{Kind: queue.KindKey, Key: m.Envelope.Key, Value: string(m.ID), Until: m.Accepted.Add(queue.KeyMemory)}
	return []Note{{Note: n, For: queue.KeyMemory}}
}

// Notes are the notes of a queue, see [queue.Notebook]. Package disk puts a log under them. Call [NewNotes] for some. They are safe
// for concurrent use.
//
// A change that must be made durable first goes in three steps, as with an [Index]: Begin takes the names for itself, so that what
// is written last is what is kept; the backend writes; Put keeps what it wrote.
type Notes struct {
	alive   func(queue.ID) bool
	dropped func(Note)
	most    int // of a kind

	listing sync.Mutex // held by List; taken before mu

	mu    sync.Mutex // guards all below
	kinds map[string]*noteKind
	busy  map[noteName]chan struct{} // being changed; closed when that ends
}

type noteName struct{ kind, key string }

type noteKind struct {
	notes map[string]*note
	ends  noteHeap
	order noteOrder
}

type note struct {
	Note
	ends time.Time // when it is looked at because of its end; the zero time is never
	pos  int       // in the heap
	gone bool
}

// NewNotes makes empty notes. alive tells whether a message is in the queue; it may take locks of an [Index]. dropped is called,
// with locks held, with each note that is replaced or gone, so that the backend frees its room; nil is no call.
func NewNotes(alive func(queue.ID) bool, dropped func(Note)) *Notes {
	return &Notes{
		alive: alive, dropped: dropped, most: queue.MaxNotes,
		kinds: map[string]*noteKind{}, busy: map[noteName]chan struct{}{},
	}
}

// Begin checks notes that are to be written, and takes their names until end is called. It waits for whoever has one of them. made
// is what Put takes, once it is written. Where the error is not nil there is nothing to end.
func (x *Notes) Begin(ctx context.Context, notes []queue.Note) (made []Note, end func(), err error) {
	if len(notes) == 0 {
		return nil, func() {}, nil
	}
	if err := queue.CheckNotes(notes); err != nil {
		return nil, nil, err
	}
	names := make([]noteName, len(notes))
	for i := range notes {
		names[i] = noteName{notes[i].Kind, notes[i].Key}
	}
	if end, err = x.take(ctx, names); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	x.Sweep(now)
	return newNotes(notes, now), end, nil
}

// newNotes expresses notes by the clock as it stands at now; those that are over are removals.
func newNotes(notes []queue.Note, now time.Time) []Note {
	made := make([]Note, len(notes))
	for i, n := range notes {
		made[i].Note = n
		if n.Until.IsZero() {
			continue
		}
		left := n.Until.Sub(now)
		made[i].Until, made[i].For = now.Add(left), left
		if left <= 0 {
			made[i] = Note{Note: queue.Note{Kind: n.Kind, Key: n.Key}}
		}
	}
	return made
}

// take takes names all at once, so that two who want several don't wait for each other.
func (x *Notes) take(ctx context.Context, names []noteName) (end func(), err error) {
	for {
		other := x.tryTake(names, &end)
		if other == nil {
			return end, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (x *Notes) tryTake(names []noteName, end *func()) (other chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, name := range names {
		if other := x.busy[name]; other != nil {
			return other
		}
	}
	mine := make(chan struct{})
	for _, name := range names {
		x.busy[name] = mine
	}
	*end = func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, name := range names {
			delete(x.busy, name)
		}
		close(mine)
	}
	return nil
}

// Put keeps notes whose record is at place.
func (x *Notes) Put(place any, notes ...Note) {
	if len(notes) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range notes {
		n.Place = place
		k := x.kinds[n.Kind]
		if k == nil {
			k = &noteKind{notes: map[string]*note{}}
			x.kinds[n.Kind] = k
		}
		if n.Removes() {
			x.drop(k, k.notes[n.Key])
			x.release(n) // what it took is free at once: whatever it removes is in front of it in the log
			continue
		}
		x.put(k, n)
	}
}

func (x *Notes) put(k *noteKind, n Note) {
	old := k.notes[n.Key]
	if old != nil {
		x.release(old.Note)
		old.Note, old.ends = n, n.Until
		heap.Fix(&k.ends, old.pos)
		return
	}
	kept := &note{Note: n, ends: n.Until}
	k.notes[n.Key] = kept
	heap.Push(&k.ends, kept)
	k.order.add(kept)
	if len(k.notes) > x.most {
		x.drop(k, k.ends[0])
	}
}

func (x *Notes) release(n Note) {
	if x.dropped != nil && n.Place != nil {
		x.dropped(n)
	}
}

// drop takes a note out; nil is none.
func (x *Notes) drop(k *noteKind, n *note) {
	if n == nil {
		return
	}
	delete(k.notes, n.Key)
	heap.Remove(&k.ends, n.pos)
	k.order.remove(n)
	if len(k.notes) == 0 {
		delete(x.kinds, n.Kind)
	}
	x.release(n.Note)
}

// over reports whether a note has ended. A key is remembered for as long as its message is there.
func (x *Notes) over(n *note, now time.Time) bool {
	return !n.Until.IsZero() && !n.Until.After(now) && (n.Kind != queue.KindKey || !x.alive(queue.ID(n.Value)))
}

// keyCheck is how long after its end a key is looked at again whose message is there still.
const keyCheck = time.Hour

// sweepAtOnce is how many notes of a kind Sweep looks at, so that nobody waits for a million that end together.
const sweepAtOnce = 10_000

// Sweep drops notes that have ended. Begin and Once do so too.
func (x *Notes) Sweep(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.kinds {
		for range sweepAtOnce {
			if len(k.ends) == 0 || k.ends[0].ends.IsZero() || k.ends[0].ends.After(now) {
				break
			}
			if n := k.ends[0]; x.over(n, now) {
				x.drop(k, n)
			} else {
				n.ends = now.Add(keyCheck)
				heap.Fix(&k.ends, 0)
			}
		}
	}
}

// Lookup and List are those of [queue.Notebook].
func (x *Notes) Lookup(kind, key string, now time.Time) (queue.Note, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.kinds[kind]
	if k == nil {
		return queue.Note{}, false
	}
	n := k.notes[key]
	if n == nil || x.over(n, now) {
		return queue.Note{}, false
	}
	return n.Note.Note, true
}

// List gives notes by key, see Lookup.
func (x *Notes) List(kind, prefix, cursor string, limit int, now time.Time) (found []queue.Note, next string) {
	x.listing.Lock()
	defer x.listing.Unlock()
	x.sortIn(kind)
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.kinds[kind]
	if k == nil {
		return nil, ""
	}
	all := k.order.all
	first, _ := slices.BinarySearchFunc(all, max(prefix, cursor), func(n *note, key string) int { return strings.Compare(n.Key, key) })
	for _, n := range all[first:] {
		switch {
		case !strings.HasPrefix(n.Key, prefix):
			return found, ""
		case n.gone || (n.Key == cursor && cursor != "") || x.over(n, now):
			continue
		case limit > 0 && len(found) == limit:
			return found, found[limit-1].Key
		}
		found = append(found, n.Note.Note)
	}
	return found, ""
}

// sortIn sorts in what is new. Of many it takes a while, in which only those wait who list too.
func (x *Notes) sortIn(kind string) {
	x.mu.Lock()
	k := x.kinds[kind]
	if k == nil || len(k.order.added) == 0 {
		x.mu.Unlock()
		return
	}
	added := k.order.take()
	x.mu.Unlock()
	slices.SortFunc(added, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	x.mu.Lock()
	k.order.merge(added)
	x.mu.Unlock()
}

// Once calls enqueue where no message has the key that is remembered, and remembers nothing by itself. It waits for whoever does
// so with the same key, and gives the ID of the first.
func (x *Notes) Once(ctx context.Context, key string, enqueue func() (queue.ID, error)) (queue.ID, error) {
	end, err := x.take(ctx, []noteName{{queue.KindKey, key}})
	if err != nil {
		return "", err
	}
	defer end()
	now := time.Now()
	x.Sweep(now)
	if n, ok := x.Lookup(queue.KindKey, key, now); ok {
		return queue.ID(n.Value), nil
	}
	return enqueue()
}

// At gives the notes for whose place want says yes, but for those that are being changed.
func (x *Notes) At(want func(place any) bool) (found []Note) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.kinds {
		for _, n := range k.notes {
			if want(n.Place) && x.busy[noteName{n.Kind, n.Key}] == nil {
				found = append(found, n.Note)
			}
		}
	}
	return found
}

// BeginMove takes the names of those of some notes that are as they were and that nobody changes. move is those, to be written anew
// and Put; end is as that of Begin.
func (x *Notes) BeginMove(notes []Note) (move []Note, end func()) {
	x.mu.Lock()
	var names []noteName
	for _, n := range notes {
		name := noteName{n.Kind, n.Key}
		k := x.kinds[n.Kind]
		if k == nil || x.busy[name] != nil || k.notes[n.Key] == nil || k.notes[n.Key].Place != n.Place {
			continue
		}
		move, names = append(move, k.notes[n.Key].Note), append(names, name)
	}
	x.mu.Unlock()
	if x.tryTake(names, &end) != nil {
		return nil, func() {} // somebody was faster
	}
	return move, end
}

// Shift, Rebase and Clamp are as those of an [Index].
func (x *Notes) Shift(d time.Duration) {
	x.times(func(t time.Time) time.Time { return t.Add(d) })
}

// Rebase expresses every time by the clock as it stands at now, see Shift.
func (x *Notes) Rebase(now time.Time) { x.times(onClock(now)) }

// times changes all times alike, which leaves their order as it is.
func (x *Notes) times(change func(time.Time) time.Time) {
	x.each(func(n *note) {
		if !n.Until.IsZero() {
			n.Until, n.ends = change(n.Until), change(n.ends)
		}
	})
}

func (x *Notes) each(f func(*note)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.kinds {
		for _, n := range k.notes {
			f(n)
		}
	}
}

// Clamp bounds what a clock that was set back between two runs has done: no note stays for longer than it was made for.
func (x *Notes) Clamp(now time.Time) {
	x.each(func(n *note) {
		if latest := now.Add(n.For); n.Until.After(latest) {
			n.Until, n.ends = latest, latest
			heap.Fix(&x.kinds[n.Kind].ends, n.pos)
		}
	})
}
