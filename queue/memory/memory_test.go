package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	queuetest.Run(t, backend)
}

func TestModel(t *testing.T) { queuetest.RunModel(t, backend) }

var backend = queuetest.Backend{New: func(testing.TB) queuetest.Queue { return memory.New() }}
