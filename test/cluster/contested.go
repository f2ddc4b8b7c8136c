package cluster

import (
	"context"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Contested returns a wrapper for a client. Each status write of that client first fails with a
// conflict, because another client has just written to the object.
func Contested(rival client.Client) func(client.Client) client.Client {
	c := &contested{rival: rival, met: map[types.UID]bool{}}
	return func(inner client.Client) client.Client { return &contestedClient{inner, c} }
}

type contested struct {
	rival  client.Client
	mu     sync.Mutex
	met    map[types.UID]bool // whether the next write has already had its conflict
	writes int
}

// meet writes to the object, unless it did so already for the next write.
func (c *contested) meet(ctx context.Context, o client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[o.GetUID()] = !c.met[o.GetUID()]
	if !c.met[o.GetUID()] {
		return nil
	}
	c.writes++
	patch := []byte(`{"metadata":{"labels":{"contested":"` + strconv.Itoa(c.writes) + `"}}}`)
	return client.IgnoreNotFound(
		c.rival.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, patch)),
	)
}

type contestedClient struct {
	client.Client
	by *contested
}

func (c *contestedClient) Status() client.SubResourceWriter {
	return &contestedStatus{c.Client.Status(), c.by}
}

type contestedStatus struct {
	client.SubResourceWriter
	by *contested
}

func (c *contestedStatus) Patch(
	ctx context.Context,
	o client.Object,
	p client.Patch,
	options ...client.SubResourcePatchOption,
) error {
	if err := c.by.meet(ctx, o); err != nil {
		return err
	}
	return c.SubResourceWriter.Patch(ctx, o, p, options...)
}
