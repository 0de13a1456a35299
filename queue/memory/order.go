package memory

import "slices"

// orderLen is how many messages stand side by side in an order.
const orderLen = 256

// An order finds messages by ID and lists them by it. New messages have the greatest ID, and cost an append; those that a log
// names out of order are put where they belong. The zero value is ready.
type order struct {
	firsts []uint64 // the first ID of each chunk
	chunks []*orderChunk
}

type orderChunk struct {
	n       int
	ids     [orderLen]uint64
	numbers [orderLen]uint32
}

// chunk tells in which chunk an ID is or would be.
func (o *order) chunk(id uint64) int {
	i, ok := slices.BinarySearch(o.firsts, id)
	if !ok && i > 0 {
		i--
	}
	return i
}

func (c *orderChunk) find(id uint64) (int, bool) { return slices.BinarySearch(c.ids[:c.n], id) }

// get gives the number of a message, 0 where there is none.
func (o *order) get(id uint64) uint32 {
	if len(o.chunks) == 0 {
		return 0
	}
	c := o.chunks[o.chunk(id)]
	if i, ok := c.find(id); ok {
		return c.numbers[i]
	}
	return 0
}

// put adds a message that is not there.
func (o *order) put(id uint64, number uint32) {
	k := len(o.chunks) - 1
	if k < 0 || (o.chunks[k].n == orderLen && id > o.chunks[k].ids[orderLen-1]) {
		o.chunks, o.firsts = append(o.chunks, &orderChunk{}), append(o.firsts, id)
		k++
	} else if id < o.firsts[k] {
		k = o.chunk(id)
	}
	if o.chunks[k].n == orderLen {
		o.split(k)
		if id > o.firsts[k+1] {
			k++
		}
	}
	c := o.chunks[k]
	i, _ := c.find(id)
	copy(c.ids[i+1:c.n+1], c.ids[i:c.n])
	copy(c.numbers[i+1:c.n+1], c.numbers[i:c.n])
	c.ids[i], c.numbers[i] = id, number
	c.n++
	o.firsts[k] = c.ids[0]
}

// split makes two chunks of one.
func (o *order) split(k int) {
	c, d := o.chunks[k], &orderChunk{}
	d.n = copy(d.ids[:], c.ids[orderLen/2:])
	copy(d.numbers[:], c.numbers[orderLen/2:])
	c.n = orderLen / 2
	o.chunks = slices.Insert(o.chunks, k+1, d)
	o.firsts = slices.Insert(o.firsts, k+1, d.ids[0])
}

// remove takes a message out. A chunk of few goes together with its neighbour.
func (o *order) remove(id uint64) {
	k := o.chunk(id)
	c := o.chunks[k]
	i, ok := c.find(id)
	if !ok {
		return
	}
	copy(c.ids[i:], c.ids[i+1:c.n])
	copy(c.numbers[i:], c.numbers[i+1:c.n])
	c.n--
	switch {
	case c.n == 0:
		o.drop(k)
		return
	case c.n < orderLen/4 && k+1 < len(o.chunks) && o.chunks[k+1].n <= orderLen/2:
		o.join(k)
	case c.n < orderLen/4 && k > 0 && o.chunks[k-1].n <= orderLen/2:
		k--
		o.join(k)
	}
	o.firsts[k] = o.chunks[k].ids[0]
}

func (o *order) join(k int) {
	c, d := o.chunks[k], o.chunks[k+1]
	copy(c.ids[c.n:], d.ids[:d.n])
	copy(c.numbers[c.n:], d.numbers[:d.n])
	c.n += d.n
	o.drop(k + 1)
}

func (o *order) drop(k int) {
	o.chunks, o.firsts = slices.Delete(o.chunks, k, k+1), slices.Delete(o.firsts, k, k+1)
}

// first gives the oldest message, 0 where there is none.
func (o *order) first() uint32 {
	if len(o.chunks) == 0 {
		return 0
	}
	return o.chunks[0].numbers[0]
}

// from calls yield with the messages from an ID on until it returns false.
func (o *order) from(id uint64, yield func(number uint32) bool) {
	if len(o.chunks) == 0 {
		return
	}
	k := o.chunk(id)
	i, _ := o.chunks[k].find(id)
	for ; k < len(o.chunks); k, i = k+1, 0 {
		for c := o.chunks[k]; i < c.n; i++ {
			if !yield(c.numbers[i]) {
				return
			}
		}
	}
}
