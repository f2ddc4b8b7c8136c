package dns01

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
)

// maxWarned is how many challenges are remembered.
const maxWarned = 1000

// warnings has the challenges whose users were warned of records that will be lost. After a restart
// they are warned once more. The zero value is ready.
type warnings struct {
	once sync.Once
	of   *lru.Cache
}

func (w *warnings) cache() *lru.Cache {
	w.once.Do(func() { w.of = lru.New(maxWarned) })
	return w.of
}

func (w *warnings) add(challenge types.UID) { w.cache().Add(challenge, struct{}{}) }

func (w *warnings) remove(challenge types.UID) { w.cache().Remove(challenge) }

func (w *warnings) has(challenge types.UID) bool {
	_, found := w.cache().Get(challenge)
	return found
}
