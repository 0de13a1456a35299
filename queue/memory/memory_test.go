package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	queuetest.Run(t, queuetest.Backend{New: func(testing.TB) queuetest.Queue { return memory.New() }})
}
