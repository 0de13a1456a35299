package resolve

import "time"

// What the DNS and those who write into it can make a Resolver do.
const (
	// MaxAliases is how many CNAME records are followed from one name. RFC 1034, section 3.6.2 wants chains followed and loops
	// reported; no honest chain comes near it.
	MaxAliases = 8

	// MaxRecords is how many records of one answer are believed. Of more MX records those with the lowest preference stay, of other
	// types the first.
	MaxRecords = 128

	// maxNameInput bounds a name before IDNA looks at it, whose work grows faster than its input. A name of 253 octets in A-label form
	// is shorter than this in UTF-8.
	maxNameInput = 1024

	// maxName is the longest name in text form without the final dot: 255 octets on the wire (RFC 1035, section 2.3.4).
	maxName = 253

	// maxLabel is the longest label (RFC 1035, section 2.3.4).
	maxLabel = 63

	// maxStrays is how many datagrams with a wrong id are overlooked before the question is put over TCP: someone is guessing
	// (RFC 5452, section 9.3).
	maxStrays = 16

	// maxServers is how many servers are read from the system's configuration, as MAXNS in resolv.conf(5).
	maxServers = 3

	// maxCachedAnswer is the size in octets over which an answer is used but not kept, so that few names cannot fill the cache.
	maxCachedAnswer = 8 << 10

	// minCachedAnswer is what an entry of the cache counts at least, its overhead, so that the bound on the cache is one on the number
	// of entries too.
	minCachedAnswer = 512

	// maxPrefetches is how many answers are renewed at a time before their end. Others are asked for when they are needed.
	maxPrefetches = 16
)

// Which answers are renewed before their end: those that were taken from the cache busyUses times, in the last part of their life.
const (
	busyUses      = 3
	prefetchShare = 10
)

const (
	// ednsSize is the size of answer that fits all paths unfragmented, the value of DNS flag day 2020 (RFC 9715, section 3.2).
	ednsSize = 1232

	// datagramBuffer is what is read of a datagram; some servers send more than they were asked for.
	datagramBuffer = 4096

	// lookupLimit ends a lookup with all its aliases, servers and attempts.
	lookupLimit = 30 * time.Second

	// serverRest is how long a server that did not answer is asked last.
	serverRest = 30 * time.Second

	// failureRest is how long a stale answer serves before servers that failed are asked again (RFC 8767, section 5).
	failureRest = 30 * time.Second

	// mannerMemory is how long a server's trouble with EDNS or with the case of names is remembered.
	mannerMemory = time.Hour

	// configInterval is how often the system's configuration is looked at for changes.
	configInterval = 5 * time.Second
)

// Defaults of the settings of a Resolver.
const (
	defaultTimeout        = 3 * time.Second
	defaultAttempts       = 2
	defaultMaxSockets     = 256
	defaultCacheSize      = 16 << 20
	defaultMaxTTL         = 24 * time.Hour
	defaultMaxNegativeTTL = 15 * time.Minute
	defaultConfigFile     = "/etc/resolv.conf"
)
