package memory

import (
	"sync"

	"github.com/sortie-mail/sortie/queue"
)

// testStore gives the messages of testMessage as they were made.
type testStore struct{}

var testMessages sync.Map

func testMessage(id uint64, to ...string) Placed {
	m := &Message{ID: encodeID(id), Size: 1, Envelope: queue.Envelope{From: "me@src.test", To: queue.To(to...)}}
	testMessages.Store(m.ID, m)
	return Placed{Message: m}
}

func (testStore) Message(id queue.ID, _ Place) (*Message, error) {
	m, ok := testMessages.Load(id)
	if !ok {
		return nil, queue.ErrNotFound
	}
	return m.(*Message), nil
}

func (testStore) Entry(m *Message, lane string, _ Mark) (Entry, error) { return *m.Entry(lane), nil }

func (testStore) Dropped(queue.ID, Place, int64) {}

func newIndex() *Index { return NewIndex(testStore{}, 1<<30) }
