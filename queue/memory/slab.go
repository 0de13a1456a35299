package memory

// slabBits says how many things of a slab lie side by side: many enough that their number costs nothing, few enough that what
// is left over by the end of a backlog is small.
const slabBits = 10

// A slab keeps things of one kind and hands out numbers for them, from 1 on. A million of them are a thousand objects to the
// garbage collector, without a pointer in them; a number takes half of a pointer. The zero value is ready.
type slab[T any] struct {
	chunks []slabChunk[T]
	room   []uint32 // chunks with room in them
	spare  *[1 << slabBits]T
	used   int
}

type slabChunk[T any] struct {
	items *[1 << slabBits]T // nil while none is used
	free  []uint16          // that were used
	fresh int               // from here on none was
	used  int
	room  bool // it stands in room
}

// add gives the number of a new zero T.
func (s *slab[T]) add() uint32 {
	if len(s.room) == 0 {
		s.chunks = append(s.chunks, slabChunk[T]{room: true})
		s.room = append(s.room, uint32(len(s.chunks)-1))
	}
	n := s.room[len(s.room)-1]
	c := &s.chunks[n]
	if c.items == nil {
		if c.items = s.spare; c.items == nil {
			c.items = new([1 << slabBits]T)
		}
		s.spare = nil
	}
	i := c.fresh
	if last := len(c.free) - 1; last >= 0 {
		i = int(c.free[last])
		c.free = c.free[:last]
	} else {
		c.fresh++
	}
	if c.used++; c.used == 1<<slabBits {
		c.room = false
		s.room = s.room[:len(s.room)-1]
	}
	s.used++
	return n<<slabBits + uint32(i) + 1
}

// at gives the thing of a number that is in use. The pointer is good until it is removed.
func (s *slab[T]) at(n uint32) *T {
	n--
	return &s.chunks[n>>slabBits].items[n&(1<<slabBits-1)]
}

// remove takes back a number. A chunk of which nothing is used gives its memory back; one is kept for what comes next.
func (s *slab[T]) remove(n uint32) {
	n--
	c := &s.chunks[n>>slabBits]
	i := n & (1<<slabBits - 1)
	var zero T
	c.items[i] = zero
	c.free = append(c.free, uint16(i))
	c.used--
	s.used--
	if !c.room {
		c.room = true
		s.room = append(s.room, n>>slabBits)
	}
	if c.used == 0 {
		s.spare, c.items, c.free, c.fresh = c.items, nil, nil, 0
	}
}
